"""What a model's score loses when random squares of an image are covered: what maps must explain."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, batched_mean_logits
from stresslens.core.blur import blurred
from stresslens.core.copies import quick
from stresslens.core.draws import Draws
from stresslens.core.maps import spans
from stresslens.core.pass_memory import images_at_once

FILLERS = ("black", "grey", "blurred")
SCORES = ("logit", "probability", "log probability")
SETTINGS = tuple((filler, score) for filler in FILLERS for score in SCORES)
"""A map explains one score, against one baseline. It does not say which, so it is judged in the
setting in which it explains most."""
SQUARES = 64
STEPS = 20
ORDERS = 5
"""The number of random pixel orders that the order of a map is compared with."""
SHARED_PASSES = 1 + len(FILLERS) * SQUARES + 2 * (STEPS + 1) * ORDERS
OWN_PASSES = 2 * (STEPS + 1)
"""Forward passes for each image: those that the checks of all explainers share, and those for each."""
ROWS = 256
VALUES = 2**23
"""At most so many images, or pixel values, pass through the model at once."""


class CoveredSquares:
    """Random squares of images x (N, C, H, W), and the losses of the scores of classes y (N,) when
    they are covered, in each of the settings S.

    All maps of the same images are judged by the same squares, so the losses are computed once. The
    model must be frozen (`attacked`).
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> None:
        self.x, self.y, self.draws = x, y, draws
        self._source = model
        self.fillers = (torch.zeros_like(x), torch.full_like(x, 0.5), blurred(x, max(x.shape[2:]) / 8))
        height, width = x.shape[2:]
        squares, smallest = draws.fork(ORDERS + 1), max(1, min(height, width) // 8)
        self._sizes = smallest + squares.integers(max(1, min(height, width) // 2 - smallest + 1), SQUARES).to(
            x.device
        )  # (N, M)
        self._tops, self._lefts = (
            (squares.uniform(SQUARES).to(x.device) * (side - self._sizes + 1)).long()
            for side in (height, width)
        )
        self._random: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def _rows(self) -> int:
        most = max(1, min(ROWS, VALUES // self.x[0].numel()))
        return images_at_once(self._source, self.x.shape[1:], most)

    @cached_property
    def _model(self) -> BatchedModel:
        return BatchedModel(quick(self._source, self.x), batch=self._rows)

    @cached_property
    def classes(self) -> int:
        """The number of classes, K."""
        return batched_mean_logits(self._model, self.x[:1]).shape[1]

    def sums(self, maps: Tensor) -> Tensor:
        """(…, N, M) the sums of maps (…, N, H, W) over the squares."""
        table = F.pad(maps.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
        columns = table.shape[-1]
        flat = table.flatten(-2)

        def at(rows: Tensor, columns_: Tensor) -> Tensor:
            return flat.gather(-1, (rows * columns + columns_).expand(*flat.shape[:-1], SQUARES))

        tops, lefts = self._tops, self._lefts
        bottoms, rights = tops + self._sizes, lefts + self._sizes
        return at(bottoms, rights) - at(tops, rights) - at(bottoms, lefts) + at(tops, lefts)

    @cached_property
    def losses(self) -> Tensor:
        """(S, N, M) what the scores lose."""
        count, (height, width) = len(self.x), self.x.shape[2:]
        rows, columns = (
            spans(starts.flatten(), self._sizes.flatten(), side).view(count, SQUARES, side)
            for starts, side in ((self._tops, height), (self._lefts, width))
        )
        clean = self.scores(self.x)
        losses: list[Tensor] = []
        for filler in self.fillers:
            found = []
            for part in torch.arange(SQUARES).split(max(1, self._rows // count)):
                inside = rows[:, part, None, :, None] & columns[:, part, None, None, :]
                images = torch.where(inside, filler[:, None], self.x[:, None])  # (N, part, C, H, W)
                scores = self.scores(images.flatten(0, 1), self.y.repeat_interleave(len(part)))
                found.append(clean[..., None] - scores.unflatten(1, (count, len(part))))
            losses.extend(torch.cat(found, 2))
        return torch.stack(losses)

    def filler_of(self, setting: Tensor) -> Tensor:
        """The positions in `fillers` of settings; those from S on are of sizes of losses."""
        return setting % len(SETTINGS) // len(SCORES)

    def unit(self, setting: int) -> Tensor:
        """(N,) what a score is measured in: 1 for the probability, the largest loss for logits."""
        largest = self.losses[setting % len(SETTINGS)].abs().amax(1)
        return torch.ones_like(largest) if setting % len(SCORES) == 1 else largest.clamp_min(1e-12)

    def scores(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """(3, N) the scores of the classes, in the order of `SCORES`."""
        logits = batched_mean_logits(self._model, images).double()
        classes = (self.y if y is None else y)[:, None]
        log = logits.log_softmax(1).gather(1, classes)[:, 0]
        return torch.stack([logits.gather(1, classes)[:, 0], log.exp(), log])

    def areas(self, order: Tensor, setting: int) -> tuple[Tensor, Tensor]:
        """(N,) the mean score while pixels are covered in this order (N, H·W), and while they are
        uncovered. (The area under the curve, Petsiuk et al. 2018.)"""
        filler, score = self.fillers[setting % len(SETTINGS) // len(SCORES)], setting % len(SCORES)
        pixels = order.shape[1]
        places = torch.arange(pixels, device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places).view(len(self.x), 1, *self.x.shape[2:])
        first = [rank < round(pixels * step / STEPS) for step in range(STEPS + 1)]
        covered = [self.scores(torch.where(part, filler, self.x))[score] for part in first]
        uncovered = [self.scores(torch.where(part, self.x, filler))[score] for part in first]
        return _area(covered), _area(uncovered)

    def random_areas(self, setting: int) -> tuple[Tensor, Tensor]:
        """The mean `areas` of random orders."""
        if setting not in self._random:
            pixels = self.x.shape[2:].numel()
            drawn = [self.draws.fork(k).uniform(pixels).to(self.x.device).argsort(1) for k in range(ORDERS)]
            covered, uncovered = zip(*(self.areas(order, setting) for order in drawn))
            self._random[setting] = (torch.stack(covered).mean(0), torch.stack(uncovered).mean(0))
        return self._random[setting]


def _area(heights: list[Tensor]) -> Tensor:
    return torch.trapezoid(torch.stack(heights), dim=0) / STEPS
