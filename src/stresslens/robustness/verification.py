"""Verification of adversarial images: recounts the robust accuracy from given adversarial images.

Checks ball and box, labels and images, and predicts every image again in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.arrays import numbers
from stresslens.core.attack_base import attacked, margins
from stresslens.core.ball import Ball, Norm, check_radius, same_radius, single_radius
from stresslens.core.cards import card, sentences
from stresslens.core.class_names import names_of
from stresslens.core.data import Split
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.format import radius
from stresslens.core.labels import label_numbers
from stresslens.core.pass_memory import images_at_once
from stresslens.core.result_lists import Findings
from stresslens.core.tables import Percent, ResultTable, Tabular, cell_text
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.inputs import check_inputs, returning_logits
from stresslens.metrics.intervals import wilson
from stresslens.robustness.adversarial_file import (
    adversarial_tensor,
    distinct_images,
    misplaced_adversarials,
    originals_of,
    positions_of,
)
from stresslens.robustness.adversarial_file import named_arrays as named_arrays
from stresslens.robustness.adversarial_file import read_adversarials as read_adversarials
from stresslens.robustness.attack_batch import batched_logits, verdict_model
from stresslens.robustness.recount_findings import Recount, checked, compare_labels, findings_of
from stresslens.robustness.robust_curves import NORMS

OF_THE_FILE = ("originals", "index", "labels", "repeated images")
"""Findings that make a file unacceptable if they are serious: it is not of the images that it
claims to be of."""
CHOSEN = 4.5
"""Standard errors from which on the images of a file are no random part of the split."""


@dataclass(frozen=True, repr=False)
class Verification(Tabular):
    """The result of a recount over m entries, each an image with or without an adversarial one."""

    broken: np.ndarray
    """(m,) whether a valid adversarial image breaks the image of this entry."""
    given: int
    """The number of adversarial images: m, or fewer if the file keeps only those that broke an
    image."""
    robust: Estimate
    """Robust accuracy: the share of distinct images that are classified correctly and not
    broken."""
    clean: Estimate
    findings: Findings
    norm: Norm
    eps: float
    largest: float
    """The largest norm of a perturbation that breaks an image."""
    untouched: int = 0
    """Adversarial images that equal their original."""

    def __repr__(self) -> str:
        return f"Verification({self._said}{self.findings.warning})"

    def _repr_html_(self) -> str:
        unacceptable = "The file itself is not acceptable." if self.unacceptable else ""
        return card(self._said, unacceptable, sentences(self.findings.sentences), self._table().html())

    @property
    def _said(self) -> str:
        """The recount in one line."""
        at = f"{NORMS[self.norm]} {radius(self.eps)}"
        found = f"robust accuracy {cell_text(Percent(self.robust))} at {at}"
        images = f"{self.given:,} adversarial images of {self.robust.n:,} images"
        return f"{found}, {cell_text(Percent(self.clean))} without attack; recounted from {images}"

    def _table(self) -> ResultTable:
        cells = [("without attack", 0.0, Percent(self.clean)), ("recounted", self.eps, Percent(self.robust))]
        return ResultTable(("images", "radius", "accuracy"), cells)

    @property
    def unacceptable(self) -> list[Finding]:
        """The serious findings on the file itself: which images and labels it is of."""
        return [each for each in self.findings if each.severity == "serious" and each.audit in OF_THE_FILE]


def verify(
    model: nn.Module,
    adversarials: Any,
    images: Any,
    labels: Any,
    *,
    norm: Norm = "linf",
    eps: Any,
    n_requested: int | None = None,
    claimed: float | None = None,
) -> Verification:
    """Recounts adversarial images (m, C, H, W) of `images` (m, C, H, W) with the true `labels`
    (m,).

    `eps` is one radius, or one for each image. `n_requested` is the number of images that the
    attack was given (default: the distinct ones), `claimed` the published robust accuracy. The
    criterion: an image is broken if its adversarial image is inside ball and box and the model, in
    float32 and evaluation mode, does not predict the label; no answer (`core.answers`) is a wrong
    one. An image that is there several times counts once. Raises ConfigError and DataError for
    wrong arguments.
    """
    originals = check_inputs(model, images, labels)
    candidates, as_bytes = adversarial_tensor(adversarials, (len(originals), *originals.shape))
    ball = Ball(norm, _radius(norm, eps, len(originals)))
    image = distinct_images(originals.floats(originals.images[:]).to(torch.float32))
    listed = torch.ones(len(originals), dtype=torch.bool)
    with returning_logits(model, originals):
        recount = _recount(model, originals, candidates, listed, image, ball, as_bytes)
    return _verification(recount, n_requested, claimed, true_labels=False)


def verify_run(
    model: nn.Module,
    split: Split,
    arrays: Mapping[str, Any],
    *,
    norm: Norm | None,
    eps: float | None,
    claimed: float | None = None,
    others: Mapping[str, Split] | None = None,
    name: str = "test",
) -> Verification:
    """Recounts the adversarial images of a file (`read_adversarials`) with a run's model and split.

    The originals are the file's `images`, which are looked up in the split, or else the images at
    its `index`, or else the first images of the split. The labels of the split count, and each image
    of it once. A file with `rows` is a result of stresslens: all images of `index` count, and the
    file has adversarial images for those at `rows` only. `others` are the run's other splits by
    name, where images are looked up that are not in the split `name`. Raises ConfigError and
    DataError for a file that does not fit.
    """
    threat = _threat(arrays, norm, eps)
    norm = norm or (str(arrays["norm"]) if "norm" in arrays else None)  # type: ignore[assignment]
    if norm is None:
        raise ConfigError("the file names no norm; give --norm linf, l2 or l1")
    if eps is None and "radius" not in arrays:
        raise ConfigError("the file names no radius; give --eps")
    index = positions_of(arrays["index"], "index", len(split)) if "index" in arrays else None
    if "rows" in arrays:
        positions = torch.arange(len(split)) if index is None else index
        recount = _recount_result(model, split.select(positions), arrays, positions, norm, eps)
        found: list[Finding] = []
    else:
        originals = originals_of(model, split, arrays, index, others or {})
        positions, found = originals.positions, originals.findings
        attacked_images = check_inputs(model, originals.attacked)
        shape = (len(attacked_images), *attacked_images.shape)
        candidates, as_bytes = adversarial_tensor(arrays["adversarials"], shape)
        ball = Ball(norm, _radius(norm, arrays["radius"] if eps is None else eps, len(attacked_images)))
        listed = torch.ones(len(attacked_images), dtype=torch.bool)
        recount = _recount(model, attacked_images, candidates, listed, originals.image, ball, as_bytes)
        outside = recount.in_box & ~recount.inside
        misplaced = misplaced_adversarials(
            candidates, outside, ball, positions, {name: split, **(others or {})}
        )
        found += [misplaced] if misplaced else []
    if arrays.get("labels") is not None:
        given = label_numbers(arrays["labels"], names_of(model))
        if given.shape != recount.labels.shape:
            raise DataError(
                f"labels have shape {tuple(given.shape)}; expected one for each image, "
                f"({len(recount.labels)},)"
            )
        wrong = compare_labels(recount, given.cpu(), recount.labels)
        found += [wrong] if wrong else []
    n = len(recount.labels) if "rows" in arrays else len(split)
    result = _verification(recount, n, claimed, true_labels=True)
    chosen = _left_out(model, split, positions)
    return replace(
        result, findings=Findings([*found, *threat, *result.findings, *([chosen] if chosen else [])])
    )


def _threat(arrays: Mapping[str, Any], norm: Norm | None, eps: float | None) -> list[Finding]:
    """A finding if the file is recounted in another norm or at a larger radius than it names."""
    found = []
    own = np.asarray(arrays.get("radius", np.nan))
    if norm is not None and "norm" in arrays and str(arrays["norm"]) != norm:
        found.append(f"the file is of {arrays['norm']}, recounted in {norm}")
    one = float(own.item()) if own.size == 1 and own.dtype.kind in "fiu" else math.nan
    if eps is not None and one < eps and not same_radius(one, eps):
        found.append(f"the file is of radius {one:g}, recounted at {eps:g}")
    return [
        checked(
            "threat model",
            1,
            True,
            f"{each}: the attack did not look there, so the figure is too high",
            "Attack at the radius and in the norm that the figure is for.",
        )
        for each in found
    ]


def _recount_result(
    model: nn.Module,
    selected: Split,
    arrays: Mapping[str, Any],
    positions: Tensor,
    norm: Norm,
    eps: float | None,
) -> Recount:
    """Recounts a result of stresslens at a radius, by default its largest. Adversarial images of
    larger radii do not count."""
    n = len(selected)
    originals, rows = check_inputs(model, selected), positions_of(arrays["rows"], "rows", n)
    if len(set(rows.tolist())) != len(rows):
        raise DataError("rows name an image more than once")
    if len(rows) != len(arrays["adversarials"]):
        raise DataError(f"{len(arrays['adversarials'])} adversarial images but {len(rows)} rows")
    radii = numbers(np.atleast_1d(arrays.get("radius", eps)), "radii")
    if radii.shape not in ((1,), (n,)):
        raise DataError(
            f"radii have shape {tuple(radii.shape)}; expected one, or one for each of the {n} images"
        )
    minimal = torch.as_tensor(_radius(norm, radii.expand(n)[rows], len(rows)))
    x = originals.floats(originals.images[:]).to(torch.float32)
    candidates, as_bytes, radius = x.clone(), False, torch.zeros(n, dtype=torch.float64)
    listed = torch.zeros(n, dtype=torch.bool)
    if len(rows):
        adversarials, as_bytes = adversarial_tensor(arrays["adversarials"], (len(rows), *selected.shape))
        within = torch.ones_like(minimal, dtype=torch.bool) if eps is None else minimal <= eps * (1 + 1e-9)
        candidates[rows[within]], listed[rows[within]] = adversarials[within], True
        radius[rows[within]] = minimal[within] if eps is None else eps
    if eps is not None:
        check_radius(norm, eps)
    return _recount(model, originals, candidates, listed, positions, Ball(norm, radius), as_bytes)


def _recount(
    model: nn.Module,
    originals: Split,
    candidates: Tensor,
    listed: Tensor,
    image: Tensor,
    ball: Ball,
    as_bytes: bool,
) -> Recount:
    """Recounts the `candidates` (n, C, H, W). Only those that are `listed` (n,) are adversarial
    images; of the other images, only the original counts. `image` (n,) is equal for entries of the
    same image."""
    device = device_of(model)
    x = originals.floats(originals.images[:]).to(device, torch.float32)
    y, candidates, listed = originals.labels.to(device), candidates.to(device), listed.to(device)
    finite = torch.isfinite(candidates.flatten(1)).all(1)
    safe = torch.where(finite[:, None, None, None], candidates, x)
    with attacked(model):
        float32_logits = verdict_model(model)
        clean, logits = batched_logits(float32_logits, x), batched_logits(float32_logits, safe)
    right, fooled = predicted(clean) == y, listed & finite & (predicted(logits) != y)
    in_box = finite & (safe >= 0).flatten(1).all(1) & (safe <= 1).flatten(1).all(1)
    inside = finite & in_box & ball.holds(safe, x)
    change = safe.double() - x.double()
    radius = torch.as_tensor(ball.eps, dtype=torch.float64, device=x.device).expand(len(x))
    return Recount(
        image.cpu(),
        y.cpu(),
        predicted(clean).cpu(),
        predicted(logits).cpu(),
        listed.cpu(),
        finite.cpu(),
        in_box.cpu(),
        inside.cpu(),
        (right & fooled & inside).cpu(),
        ball.size(change).cpu(),
        change.flatten(1).abs().amax(1).cpu(),
        radius.cpu(),
        ball.norm,
        (float(safe.min()), float(safe.max())),
        as_bytes,
    )


def _verification(
    recount: Recount, n_requested: int | None, claimed: float | None, *, true_labels: bool
) -> Verification:
    """The figures over distinct images: one is broken if any of its adversarial images breaks it. A claim
    above 1 is in percent, as leaderboards give it."""
    if claimed is not None:
        if not 0 <= claimed <= 100:
            raise ConfigError(
                f"--claimed {claimed}: expected a robust accuracy, as a share (0.661) or in percent (66.1)"
            )
        claimed = claimed / 100 if claimed > 1 else claimed
    _, image = torch.unique(recount.image, return_inverse=True)
    n = recount.distinct
    right = torch.ones(n, dtype=torch.bool).index_put_((image[~recount.right],), torch.tensor(False))
    stands = right.index_put((image[recount.broken],), torch.tensor(False))
    robust = wilson(int(stands.sum()), n)
    return Verification(
        recount.broken.numpy(),
        int(recount.listed.sum()),
        robust,
        wilson(int(right.sum()), n),
        Findings(findings_of(recount, robust, n_requested, claimed, true_labels=true_labels)),
        recount.norm,
        float(recount.radius.max()),
        float(recount.size[recount.broken].max()) if bool(recount.broken.any()) else 0.0,
        int(recount.untouched.sum()),
    )


def _left_out(model: nn.Module, split: Split, positions: Tensor) -> Finding | None:
    """A finding if the images at `positions` (m,) are easier or harder for the model than the rest
    of the split; None if none are left out.

    Margins are compared within each class (Mann-Whitney, summed over classes as van Elteren 1960
    does, with equal weights). In a random part of the split they differ by chance only.
    """
    given = torch.zeros(len(split), dtype=torch.bool)
    given[positions[positions >= 0]] = True
    if not given.any() or given.all():
        return None
    device = device_of(model)
    with attacked(model):
        float32_logits = verdict_model(model)
        parts = [
            margins(batched_logits(float32_logits, x.to(device)), y.to(device)).double().cpu()
            for x, y, _ in split.batches(images_at_once(model, split.shape, 256))
        ]
    margin, labels = torch.cat(parts), split.labels.cpu()
    wins, expected, variance = 0.0, 0.0, 0.0
    for label in torch.unique(labels):
        inside, rest = margin[given & (labels == label)], margin[~given & (labels == label)]
        m, r = len(inside), len(rest)
        ranks = rest.sort().values
        wins += float(
            (torch.searchsorted(ranks, inside) + torch.searchsorted(ranks, inside, right=True)).sum() / 2
        )
        expected, variance = expected + m * r / 2, variance + m * r * (m + r + 1) / 12
    z = (wins - expected) / max(variance, 1e-12) ** 0.5
    correct = [100 * float((margin[rows] > 0).double().mean()) for rows in (given, ~given)]
    kind = "easier" if z > CHOSEN else "harder" if z < -CHOSEN else "neither easier nor harder"
    return checked(
        "left out images",
        len(split),
        abs(z) > CHOSEN,
        f"the {int(given.sum())} images of the file are {kind} for the model than the {int((~given).sum())} "
        f"left out: {correct[0]:.1f} against {correct[1]:.1f} % right without attack, z = {z:.1f} of margins",
        "Attack the whole split, or images of it that are drawn at random.",
        "serious" if z > 0 else "minor",
    )


def _radius(norm: Norm, eps: Any, n: int) -> float | Tensor:
    """One radius, or (n,) one for each of n images. Raises ConfigError for anything else."""
    one = None
    with suppress(ConfigError):
        one = single_radius(eps)
    if one is not None:
        check_radius(norm, one)
        return one
    try:
        radii = torch.as_tensor(eps, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"eps is {eps!r}; expected a radius, or one for each of the {n} images") from None
    if radii.shape != (n,):
        raise ConfigError(
            f"eps has shape {tuple(radii.shape)}; expected one radius, or one for each of the {n} images"
        )
    for extreme in (radii.min(), radii.max()) if n else ():
        check_radius(norm, float(extreme))
    return radii
