"""Verification of adversarial images: recounts the robust accuracy from given adversarial images.

Checks ball and box, labels and dropped images, and predicts every image again in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.answers import answered, predicted
from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball, Norm, check_radius
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_arrays
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.inputs import check_inputs, numbers
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import batched_logits, verdict_model
from stresslens.robustness.result_file import attacked_images

NAMES = {
    "adversarials": ("adversarials", "x_adv", "adv", "adversarial", "advs", "adv_images"),
    "images": ("images", "x", "x_test", "originals", "clean"),
    "labels": ("labels", "y", "y_test"),
    "index": ("index",),
    "rows": ("rows",),
    "radius": ("smallest", "eps", "epsilon", "radius"),
    "norm": ("norm",),
}
"""The accepted names of each array in an npz file; the first of them that the file has counts."""
EIGHT_BIT = 1 / 255


@dataclass(frozen=True)
class Verification:
    """The result of a recount over n images."""

    broken: np.ndarray
    """(n,) whether a valid adversarial image breaks the image."""
    given: int
    """The number of adversarial images: n, or fewer if the file keeps only those that broke an
    image."""
    robust: Estimate
    """Robust accuracy: the share of images that are classified correctly and not broken."""
    clean: Estimate
    findings: list[Finding]
    norm: Norm
    eps: float
    largest: float
    """The largest norm of a perturbation that breaks an image."""


def read_adversarials(path: Path) -> dict[str, Any]:
    """The arrays of an npz file, by the keys of `NAMES`. Raises UnreadableRun, and ConfigError if
    it holds no adversarial images."""
    arrays = read_arrays(path, f"there is no {path}")
    if "smallest" in arrays and "rows" in arrays:
        arrays = attacked_images(arrays)
    named = {key: arrays[name] for key, names in NAMES.items() for name in reversed(names) if name in arrays}
    if "adversarials" not in named:
        names = ", ".join(NAMES["adversarials"])
        raise ConfigError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected an array of one of these names: {names}"
        )
    return named


def verify(
    model: nn.Module,
    adversarials: Any,
    images: Any,
    labels: Any,
    *,
    norm: Norm = "linf",
    eps: float | Any,
    n_requested: int | None = None,
    claimed: float | None = None,
) -> Verification:
    """Recounts adversarial images (m, C, H, W) of `images` (m, C, H, W) with the true `labels`
    (m,).

    `eps` is one radius, or one for each image. `n_requested` is the number of images that the
    attack was given (default m), `claimed` the published robust accuracy. The criterion: an image
    is broken if its adversarial image is inside ball and box and the model, in float32 and
    evaluation mode, does not predict the label; no answer (`core.answers`) is a wrong one. Raises
    ConfigError and DataError for wrong arguments.
    """
    originals = check_inputs(model, images, labels)
    candidates, as_bytes = _candidates(adversarials, (len(originals), *originals.shape))
    listed = torch.ones(len(originals), dtype=torch.bool)
    return _recount(
        model,
        originals,
        candidates,
        listed,
        Ball(norm, _radius(norm, eps, len(originals))),
        n_requested,
        claimed,
        as_bytes,
    )


def verify_run(
    model: nn.Module,
    split: Split,
    arrays: Mapping[str, Any],
    *,
    norm: Norm | None,
    eps: float | None,
    claimed: float | None = None,
) -> Verification:
    """Recounts the adversarial images of a file (`read_adversarials`) with a run's model and split.

    The originals are the file's `images`, or else the images at its `index` in the split, or else
    the first images of the split. A file with `rows` is a result of stresslens: all images of
    `index` count, and the file has adversarial images for those at `rows` only. Raises ConfigError
    and DataError for a file that does not fit.
    """
    norm = norm or (str(arrays["norm"]) if "norm" in arrays else None)  # type: ignore[assignment]
    if norm is None:
        raise ConfigError("the file names no norm; give --norm linf, l2 or l1")
    if eps is None and "radius" not in arrays:
        raise ConfigError("the file names no radius; give --eps")
    index = _positions(arrays["index"], "index", len(split)) if "index" in arrays else None
    if "rows" in arrays:
        selected = split.select(torch.arange(len(split)) if index is None else index)
        result = _recount_result(model, selected, arrays, norm, eps, claimed)
    else:
        adversarials, radius = arrays["adversarials"], arrays["radius"] if eps is None else eps
        m = len(adversarials) if np.ndim(adversarials) else 0
        images, labels = arrays.get("images"), arrays.get("labels")
        if images is not None and (np.ndim(images) < 3 or len(images) != m):
            images = None
        positions = torch.arange(min(m, len(split))) if index is None else index
        if len(positions) != m and (images is None or labels is None or index is not None):
            raise DataError(
                f"{m} adversarial images but {len(positions)} places in the split; "
                "add `images` and `labels`, or `index`"
            )
        selected = split.select(positions)
        originals: Any = selected
        if images is not None:
            originals, labels = np.asarray(images), selected.labels if labels is None else labels
            originals = originals[:, None] if originals.ndim == 3 else originals
        result = verify(
            model,
            adversarials,
            originals,
            labels,
            norm=norm,
            eps=radius,
            n_requested=len(split),
            claimed=claimed,
        )
        if images is not None and index is None:
            return result  # the positions of these images in the split are unknown
    if arrays.get("labels") is not None:
        _compare_labels(result, numbers(arrays["labels"], "labels"), selected.labels)
    return result


def _recount_result(
    model: nn.Module,
    selected: Split,
    arrays: Mapping[str, Any],
    norm: Norm,
    eps: float | None,
    claimed: float | None,
) -> Verification:
    """Recounts a result of stresslens at a radius, by default its largest. Adversarial images of
    larger radii do not count."""
    n = len(selected)
    originals, rows = check_inputs(model, selected), _positions(arrays["rows"], "rows", n)
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
        adversarials, as_bytes = _candidates(arrays["adversarials"], (len(rows), *selected.shape))
        within = torch.ones_like(minimal, dtype=torch.bool) if eps is None else minimal <= eps * (1 + 1e-9)
        candidates[rows[within]], listed[rows[within]] = adversarials[within], True
        radius[rows[within]] = minimal[within] if eps is None else eps
    if eps is not None:
        check_radius(norm, eps)
    return _recount(model, originals, candidates, listed, Ball(norm, radius), None, claimed, as_bytes)


def _recount(
    model: nn.Module,
    originals: Split,
    candidates: Tensor,
    listed: Tensor,
    ball: Ball,
    n_requested: int | None,
    claimed: float | None,
    as_bytes: bool,
) -> Verification:
    """Recounts the `candidates` (n, C, H, W). Only those that are `listed` (n,) are adversarial
    images; of the other images, only the original counts."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
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
    broken = right & fooled & inside
    size, radius = (
        ball.size(safe.double() - x.double()),
        torch.as_tensor(ball.eps, dtype=torch.float64, device=x.device),
    )
    robust = wilson(int((right & ~broken).sum()), len(x))
    given = int(listed.sum())
    counts = {
        "m": given,
        "images": len(x),
        "n": max(n_requested or 0, len(x)),
        "bytes": as_bytes,
        "not finite": int((~finite).sum()),
        "outside the box": int((finite & ~in_box).sum()),
        "outside the ball": int((in_box & ~inside).sum()),
        "fooled outside": int((right & fooled & ~inside).sum()),
        "largest": float((size - radius).max()),
        "clean without answer": int((~answered(clean)).sum()),
        "broken without answer": int((broken & ~answered(logits)).sum()),
        "claimed": claimed,
        "robust": robust,
    }
    largest = float(size[broken].max()) if bool(broken.any()) else 0.0
    return Verification(
        broken.cpu().numpy(),
        given,
        robust,
        wilson(int(right.sum()), len(x)),
        _findings(counts),
        ball.norm,
        float(radius.max()),
        largest,
    )


def _radius(norm: Norm, eps: Any, n: int) -> float | Tensor:
    """One radius, or (n,) one for each of n images. Raises ConfigError for anything else."""
    try:
        radius = torch.as_tensor(eps, dtype=torch.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"eps is {eps!r}; expected a radius, or one for each of the {n} images") from None
    if radius.ndim and radius.shape != (n,):
        raise ConfigError(
            f"eps has shape {tuple(radius.shape)}; expected one radius, or one for each of the {n} images"
        )
    for extreme in (radius.min(), radius.max()) if radius.numel() else ():
        check_radius(norm, float(extreme))
    return radius if radius.ndim else float(radius)


def _positions(values: Any, name: str, n: int) -> Tensor:
    """(m,) positions among n images. Raises DataError for anything else."""
    positions = np.asarray(values)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise DataError(
            f"{name} is {positions.dtype} of shape {positions.shape}; "
            "expected whole numbers, one for each image"
        )
    if positions.size and (positions.min() < 0 or positions.max() >= n):
        raise DataError(
            f"{name} runs from {positions.min()} to {positions.max()}; there are {n} images (0 to {n - 1})"
        )
    return torch.as_tensor(positions.astype(np.int64))


def _compare_labels(result: Verification, given: Tensor, labels: Tensor) -> None:
    """Adds a finding if the file's labels differ from the split's. Raises DataError if there is not
    one label for each image."""
    if given.shape != labels.shape:
        raise DataError(
            f"labels have shape {tuple(given.shape)}; expected one for each image, ({len(labels)},)"
        )
    wrong = int((given.to(labels.device) != labels).sum())
    if wrong:
        finding = Finding(
            "labels",
            "sign",
            "serious",
            f"{wrong} of {len(labels)} labels in the file differ from the split's: "
            "they may be the model's own predictions",
            len(labels),
            "Attack the true labels; an image that is misclassified without attack counts as broken.",
        )
        result.findings.insert(0, finding)


def _candidates(adversarials: Any, expected: tuple[int, ...]) -> tuple[Tensor, bool]:
    """The adversarial images as float32 (m, C, H, W) in [0, 1], and whether they were stored in 8
    bits. Raises DataError for a wrong shape or type."""
    candidates = numbers(adversarials, "adversarial images")
    if candidates.ndim == 3:
        candidates = candidates[:, None]
    if tuple(candidates.shape) != expected:
        raise DataError(
            f"adversarial images have shape {tuple(candidates.shape)}; their originals {expected}"
        )
    if candidates.dtype == torch.uint8:
        return candidates.float() / 255, True
    if not candidates.is_floating_point():
        raise DataError(
            f"adversarial images are {candidates.dtype}; "
            "expected floats in [0, 1], or uint8 where 255 is white"
        )
    return candidates.to(torch.float32), False


def _findings(counts: Mapping[str, Any]) -> list[Finding]:
    """A finding for each check of a recount; see `_recount` for the counts."""
    m, images, n = counts["m"], counts["images"], counts["n"]
    findings = [
        _finding(
            "finite",
            m,
            counts["not finite"] > 0,
            f"{counts['not finite']} of {m} images hold NaN or infinity",
            "Attack them again.",
        ),
        _finding(
            "box",
            m,
            counts["outside the box"] > 0,
            f"{counts['outside the box']} of {m} images leave [0, 1]",
            "Clamp to [0, 1] in every step; these images are not counted.",
        ),
        _finding(
            "ball",
            m,
            counts["outside the ball"] > 0,
            f"{counts['outside the ball']} of {m} images lie outside the ball, "
            f"the farthest by {max(counts['largest'], 0):.4g}; "
            f"{counts['fooled outside']} would fool the model there",
            "Project onto the ball around the original image after every step, in pixel units; "
            "these images are not counted.",
        ),
        _finding(
            "dropped images",
            m,
            images < n,
            f"{images} images of {n} asked for" if images < n else f"all {n} images are there",
            "A last partial batch, or failures left out: attack every image and count the missing "
            "as not robust or not attacked.",
            "minor",
        ),
    ]
    clean, broken = counts["clean without answer"], counts["broken without answer"]
    findings.append(
        _finding(
            "no answer",
            m,
            clean + broken > 0,
            f"the model's scores are not finite (NaN or infinity) for {clean} of {images} originals, and for "
            f"{broken} adversarial images that count as breaking theirs",
            "No answer counts as wrong. Find where the forward pass leaves the numbers.",
            "serious" if clean + broken >= max(2, 0.01 * images) else "minor",
        )
    )
    if counts["bytes"]:
        evidence = (
            f"the images are stored in 8 bits, which moves a pixel by up to {EIGHT_BIT / 2:.4f}: "
            "some attacks may be undone"
        )
        findings.append(_finding("8 bits", m, True, evidence, "Store float32.", "minor"))
    claimed, robust = counts["claimed"], counts["robust"]
    if claimed is not None:
        differs = abs(claimed - robust.value) * images >= 2
        evidence = f"claimed {100 * claimed:.1f} %, recounted {100 * robust.value:.1f} % of {images} images"
        remedy = "Publish the recounted figure, or the images that the claim rests on."
        findings.append(_finding("claimed accuracy", m, differs, evidence, remedy))
    return findings


def _finding(
    audit: str,
    m: int,
    wrong: bool,
    evidence: str,
    remedy: str,
    severity: Literal["minor", "serious"] = "serious",
) -> Finding:
    """A finding on m adversarial images; without a remedy if nothing is wrong."""
    if wrong:
        return Finding(audit, "sign", severity, evidence, m, remedy)
    return Finding(audit, "no sign", "none", evidence, m, "")
