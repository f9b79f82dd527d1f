"""Quality checks of attribution maps.

The question of each check is whether the map of this image, for this class and this model, explains
more than something that cannot be right. What a map explains is measured by infidelity (Yeh et al.
2019): random squares are covered, and the sums of the map over them predict the losses of score.
The same squares judge other maps: the map's own pixels in random places, the map moved, flipped or
turned, the map of another image, of another class, of a model whose weights are shuffled (Adebayo
et al. 2018). Deletion and insertion (Petsiuk et al. 2018) compare the order of the pixels with
random orders. Sensitivity (Yeh et al.) compares how far noise that hardly changes the image moves
the map with how far another image moves it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.core.types import Estimate
from stresslens.explanation.covered_squares import ORDERS, CoveredSquares
from stresslens.explanation.map_file import Quality
from stresslens.metrics.intervals import t_mean

NOISE = 0.02
NOISY = 2
MAPS = 4 + NOISY
"""Maps of each image that are computed in all: its own, the controls, and those of noisy images."""
PERMUTATIONS = 10
BEATEN = 0.05
"""A map is in the wrong place if another place explains this share more of the losses."""
NEARER = 0.5
"""Noise moves a map too far if it moves it by more than this share of the way to another map."""
FEW = 5
"""With fewer images an interval says little, and the mean decides."""
EXPLAINED = {
    "shuffled pixels": "its sums over squares predict what covering them costs no better than the same "
    "values in random places",
    "another image": "it explains this image no better than the map of another image does",
    "another class": "it explains this class no better than the map for another class does",
    "shuffled weights": "it explains this model no better than the map of a model whose weights were "
    "shuffled: what was learned does not show in it",
}
"""A control: a map that cannot be right, and what a map that explains no more than it fails."""


class MapFunction(Protocol):
    """Computes the maps of images (N, C, H, W) for classes y (N,) of a model, with the random draws
    of each image."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps: ...


@dataclass(frozen=True)
class MapQuality:
    """The quality checks of N maps: `checks` has their means over the images, `each` their values
    (N,) for every image, and `failed` says in words which checks the maps fail."""

    checks: Mapping[str, Estimate]
    each: Mapping[str, np.ndarray]
    failed: tuple[str, ...]

    def rounded(self) -> Quality:
        """The checks as in result.json, with four decimals."""
        each = {name: [round(float(value), 4) for value in values] for name, values in self.each.items()}
        return Quality(checks=dict(self.checks), each=each, failed=list(self.failed))


def map_quality(
    maps: Maps,
    compute_maps: MapFunction,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    squares: CoveredSquares | None = None,
) -> MapQuality:
    """Checks the maps of images x (N, C, H, W) for classes y (N,). `compute_maps` has computed
    them, and computes maps of other images, for other classes and for other models.

    `squares` are those of the same images and model, for several explainers. The model must be
    frozen (`attacked`).
    """
    squares = CoveredSquares(model, x, y, draws) if squares is None else squares
    values = maps.values.to(x.device)
    fit = _Fit(squares, values, maps.signed)

    def compute(x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return compute_maps(model, x, y, draws).values.to(values.device)

    controls = {
        "shuffled pixels": fit.permuted(draws.fork(ORDERS + 3)),
        **_controls(compute, model, x, y, squares.classes, draws),
    }
    noise, moved = draws.fork(ORDERS + 2), []
    for _ in range(NOISY):
        near = (x + noise.uniform(*x.shape[1:], low=-NOISE, high=NOISE).to(x)).clamp(0, 1)
        moved.append(_distance(values, compute(near, y, Draws(draws.seed, draws.index))))
    own = fit.unexplained(values[None])[0]
    deletion, insertion = fit.sooner()
    by_image = {
        "deletion": deletion,
        "insertion": insertion,
        "infidelity": own,
        "sensitivity": torch.stack(moved).amax(0),
    }
    if "shuffled weights" in controls:
        by_image["randomisation"] = _alike(values, controls["shuffled weights"][0], maps.signed)
    by_image |= {name: fit.unexplained(control).mean(0) - own for name, control in controls.items()}
    moves = fit.gains(_transformed(values, maps.signed), own)
    by_image["moved"] = -moves[moves.mean(1).argmax()]
    exchanged = fit.gains(_exchanged(values), own) if len(x) > 1 else moves[:0]
    further = by_image["sensitivity"] - NEARER * _distance(
        values, controls.get("another image", controls["shuffled pixels"])[0]
    )
    arrays = {name: check.double().cpu().numpy() for name, check in by_image.items()}
    checks = {name: replace(t_mean(check), unit="images") for name, check in arrays.items()}
    failed = _failed(arrays, beaten_by_another=_is_beaten(exchanged))
    if _is_beaten(moves):
        failed.append("it explains more when it is moved, flipped, turned, or given the other sign")
    if _low(further.cpu().numpy()) > 0:
        failed.append("noise that cannot be seen changes it altogether")
    return MapQuality(checks, arrays, tuple(failed))


def _controls(
    compute: Callable[[Tensor, Tensor, Draws], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    classes: int,
    draws: Draws,
) -> dict[str, Tensor]:
    """(1, N, H, W) maps that are of another image, class or model, as far as there is another."""
    controls = {}
    if len(x) > 1:
        partner = _partners(y)
        controls["another image"] = compute(x[partner], y, Draws(draws.seed, draws.index[partner]))[None]
    if classes > 1:
        another = (y + 1 + draws.fork(ORDERS + 5).integers(classes - 1).to(y.device)) % classes
        controls["another class"] = compute(x, another, Draws(draws.seed, draws.index))[None]
    if any(True for _ in model.parameters()):  # an estimator has no weights to shuffle
        with _weights_shuffled(model):
            controls["shuffled weights"] = compute(x, y, draws.fork(ORDERS))[None]
    return controls


def _partners(y: Tensor) -> Tensor:
    """(N,) the position of another image for each, of the same class y (N,) if there is one."""
    partner = torch.arange(len(y), device=y.device)
    for label in y.unique():
        same = (y == label).nonzero()[:, 0]
        partner[same] = same.roll(-1)
    alone = (partner == torch.arange(len(y), device=y.device)).nonzero()[:, 0]
    partner[alone] = alone.roll(-1) if len(alone) > 1 else (alone + 1) % len(y)
    return partner


class _Fit:
    """How well maps explain the losses of covered squares, each image in its best setting.

    For an image it is the setting in which the maps (N, H, W) of the other images explain most, so
    that the choice does not favour its own map. A map without a sign may also explain the sizes of
    the losses.
    """

    def __init__(self, squares: CoveredSquares, values: Tensor, signed: bool) -> None:
        self.squares, self.values = squares, values
        losses = squares.losses  # (S, N, M)
        self._losses = losses if signed else torch.cat([losses, losses.abs()])
        own = self._by_setting(values)
        self._setting = _best_of_others(own)
        self._overall = int(own.mean(1).argmin())

    def _by_setting(self, maps: Tensor) -> Tensor:
        """(S, N) infidelity of maps (N, H, W) in each setting."""
        return _unexplained(self.squares.sums(maps), self._losses)

    def unexplained(self, maps: Tensor) -> Tensor:
        """(C, N) infidelity of C maps of each image (C, N, H, W): the squared error of the sums,
        after the best scaling, as a share of the squared losses. 0 is perfect; 1 explains nothing."""
        rows = torch.arange(len(self._setting), device=self._setting.device)
        return _unexplained(self.squares.sums(maps), self._losses[self._setting, rows])

    def gains(self, others: Iterable[Tensor], own: Tensor) -> Tensor:
        """(T, N) how much more T other maps (N, H, W) explain, in their own best settings, than the
        map, whose infidelity is `own` (N,)."""
        found = [self._by_setting(other) for other in others]
        return torch.stack([own - each.gather(0, _best_of_others(each)[None])[0] for each in found])

    def permuted(self, draws: Draws) -> Tensor:
        """(PERMUTATIONS, N, H, W) the values of the maps in random places, among the pixels that
        covering changes."""
        flat = self.values.flatten(1)
        fillers = torch.stack(self.squares.fillers)
        rows = torch.arange(len(flat), device=flat.device)
        filler = fillers[self.squares.filler_of(self._setting), rows]
        free = (self.squares.x - filler).abs().amax(1).flatten(1) > 0
        places = (~free).to(torch.uint8).sort(dim=1, stable=True).indices
        fixed = torch.arange(flat.shape[1], device=flat.device) + 2.0
        moved = []
        for _ in range(PERMUTATIONS):
            drawn = torch.where(free, draws.uniform(flat.shape[1]).to(flat.device), fixed).argsort(1)
            moved.append(torch.empty_like(flat).scatter_(1, places, flat.gather(1, drawn)))
        return torch.stack(moved).view(PERMUTATIONS, *self.values.shape)

    def sooner(self) -> tuple[Tensor, Tensor]:
        """(N,) how much lower the mean score is while pixels are covered from the highest value
        down, and how much higher while they are uncovered, than in random orders.

        The score is the probability, or a logit as a share of the largest loss.
        """
        order, setting = self.values.flatten(1).argsort(1, descending=True), self._overall
        (covered, uncovered), (by_chance, by_chance_) = (
            self.squares.areas(order, setting),
            self.squares.random_areas(setting),
        )
        unit = self.squares.unit(setting)
        return (by_chance - covered) / unit, (uncovered - by_chance_) / unit


def _best_of_others(unexplained: Tensor) -> Tensor:
    """(N,) for each image the setting in which the other images are explained most, from (S, N)."""
    alone = unexplained.shape[1] == 1
    others = unexplained if alone else unexplained.sum(1, keepdim=True) - unexplained
    return others.argmin(0)


def _unexplained(sums: Tensor, losses: Tensor) -> Tensor:
    """(…, N) from sums (…, N, M) and losses (…, N, M)."""
    both = (sums * losses).sum(-1).clamp_min(0).square()
    sizes = sums.square().sum(-1) * losses.square().sum(-1)
    return 1 - both / sizes.clamp_min(1e-30)


def _transformed(maps: Tensor, signed: bool) -> Iterator[Tensor]:
    """Maps (N, H, W) flipped, turned, moved, and with the other sign."""
    height, width = maps.shape[1:]
    yield from (maps.flip(1), maps.flip(2), maps.flip(1, 2))
    if height == width:
        yield from (maps.mT, maps.mT.flip(1), maps.mT.flip(2), maps.mT.flip(1, 2))
    if signed:
        yield -maps
    for share, rows, columns in itertools.product((16, 8, 4), (-1, 0, 1), (-1, 0, 1)):
        if rows or columns:
            down, across = max(1, height // share), max(1, width // share)
            yield maps.roll((down * rows, across * columns), (1, 2))


def _exchanged(maps: Tensor) -> Iterator[Tensor]:
    """The maps (N, H, W) of other images of the batch: those up to eight places before and behind."""
    near = range(1, min(8, len(maps) - 1) + 1)
    yield from (maps.roll(sign * step, 0) for step in near for sign in (1, -1))


def _low(values: np.ndarray, level: float = 0.95) -> float:
    """The lower end of the mean's interval; of few images, the mean."""
    return t_mean(values, level=level).low if len(values) >= FEW else float(values.mean())


def _above_zero(values: np.ndarray) -> bool:
    """By the interval, or for every image: of five or more, by chance once in 32 times."""
    return _low(values) > 0 or bool((values > 0).all())


def _failed(each: Mapping[str, np.ndarray], *, beaten_by_another: bool) -> list[str]:
    """What the maps do not explain better than, in words."""
    failed = []
    if not (_above_zero(each["deletion"]) or _above_zero(each["insertion"])):
        failed.append("covering or uncovering its highest pixels tells no more than random ones")
    for control, words in EXPLAINED.items():
        beaten = beaten_by_another and control == "another image"
        if control in each and (beaten or not _above_zero(each[control])):
            failed.append(words)
    return failed


def _is_beaten(gains: Tensor) -> bool:
    """From (T, N) how much more T other maps explain: whether one explains clearly more, by its
    interval (Bonferroni), or on average and for every image."""
    level = 1 - 0.05 / max(1, len(gains))
    return any(
        _low(gain, level) > BEATEN or (gain.mean() > BEATEN and bool((gain > 0).all()))
        for gain in gains.cpu().numpy()
    )


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """(N,) the distance of two maps, divided by the larger norm of the two."""
    sizes = torch.maximum(*(maps.flatten(1).norm(dim=1) for maps in (one, other)))
    distance: Tensor = (other - one).flatten(1).norm(dim=1)
    return distance / sizes.clamp_min(1e-30)


@contextmanager
def _weights_shuffled(model: nn.Module) -> Iterator[None]:
    """The entries of every parameter are shuffled inside the context. The weights keep their sizes,
    and what was learned is lost."""
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter, values in before:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(values.flatten()[order].view_as(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in before:
                parameter.copy_(values)


def _alike(one: Tensor, other: Tensor, signed: bool) -> Tensor:
    """(N,) Spearman's rank correlation between two maps of each image, where one of them is not
    zero; 0 if one of them is constant there. Zero in both may be zero by construction, such as a
    gradient times a black pixel."""
    from scipy.stats import rankdata

    found = []
    for pair in zip(one.flatten(1).double().cpu().numpy(), other.flatten(1).double().cpu().numpy()):
        where = (pair[0] != 0) | (pair[1] != 0)
        ranks = [rankdata(values[where] if signed else np.abs(values[where])) for values in pair]
        a, b = (r - r.mean() if len(r) else r for r in ranks)
        size = math.sqrt(float(a @ a) * float(b @ b))
        found.append(float(a @ b) / size if size else 0.0)
    return torch.tensor(found, dtype=torch.float64)
