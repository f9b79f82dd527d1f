"""Anybody's adversarial images counted again: ball and box, labels, dropped images, and the model's
answers in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball, Norm, check_radius
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_arrays
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.inputs import check_inputs, numbers
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import batched_logits, verdict_model

NAMES = {
    "adversarials": ("adversarials", "x_adv", "adv", "adversarial", "advs", "adv_images"),
    "images": ("images", "x", "x_test", "originals", "clean"),
    "labels": ("labels", "y", "y_test"),
    "index": ("index",),
    "rows": ("rows",),
    "radius": ("smallest", "eps", "epsilon", "radius"),
    "norm": ("norm",),
}
"""What arrays of a file are taken for what."""
EIGHT_BIT = 1 / 255


@dataclass(frozen=True)
class Verification:
    """A recount. `broken` (n,) which images are broken by an adversarial that holds; `robust` the
    share of the images that none breaks."""

    broken: np.ndarray
    given: int
    """Adversarial images that were counted again: n, or fewer where a result keeps only those that
    broke something."""
    robust: Estimate
    clean: Estimate
    findings: list[Finding]
    norm: Norm
    eps: float
    largest: float
    """The largest perturbation among those that fool the model."""


def read_adversarials(path: Path) -> dict[str, Any]:
    """The arrays of an npz file by what they are. Raises UnreadableRun, and ConfigError when there
    are no adversarial images."""
    arrays = read_arrays(path, f"there is no {path}")
    found = {
        what: arrays[name] for what, names in NAMES.items() for name in reversed(names) if name in arrays
    }
    if "adversarials" not in found:
        names = ", ".join(NAMES["adversarials"])
        raise ConfigError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected an array of one of these names: {names}"
        )
    return found


def verify(
    model: nn.Module,
    adversarials: Any,
    images: Any,
    labels: Any,
    *,
    norm: Norm = "linf",
    eps: float | Any,
    asked: int | None = None,
    claimed: float | None = None,
) -> Verification:
    """Counts adversarial images (m, C, H, W) of `images` (m, C, H, W) with the true `labels` (m,) again.

    `eps` is a radius, or one for each image; `asked` how many images the figure was to be about
    (default m), `claimed` the robust accuracy that was published. An image counts as broken when
    its adversarial lies in ball and box and the model, in float32 and evaluation mode, answers
    anything but the label. Raises ConfigError and DataError for what cannot be read.
    """
    originals = check_inputs(model, images, labels)
    candidates, as_bytes = _candidates(adversarials, (len(originals), *originals.shape))
    listed = torch.ones(len(originals), dtype=torch.bool)
    return _recounted(
        model,
        originals,
        candidates,
        listed,
        Ball(norm, _radius(norm, eps, len(originals))),
        asked,
        claimed,
        as_bytes,
    )


def verify_run(
    model: nn.Module,
    split: Split,
    found: Mapping[str, Any],
    *,
    norm: Norm | None,
    eps: float | None,
    claimed: float | None = None,
) -> Verification:
    """The adversarials of a file against a run's model and split: the originals by the file's own
    `images`, else by its `index` into the split, else in file order.

    With `rows` it is a result of stresslens: every image of `index` is judged, and adversarials are
    kept of those at `rows` alone. Raises ConfigError and DataError for what cannot be read.
    """
    norm = norm or (str(found["norm"]) if "norm" in found else None)  # type: ignore[assignment]
    if norm is None:
        raise ConfigError("the file names no norm; give --norm linf, l2 or l1")
    if eps is None and "radius" not in found:
        raise ConfigError("the file names no radius; give --eps")
    index = _places(found["index"], "index", len(split)) if "index" in found else None
    if "rows" in found:
        own = split.select(torch.arange(len(split)) if index is None else index)
        result = _of_result(model, own, found, norm, eps, claimed)
    else:
        adversarials, radius = found["adversarials"], found["radius"] if eps is None else eps
        m = len(adversarials) if np.ndim(adversarials) else 0
        images, labels = (found.get(what) for what in ("images", "labels"))
        if images is not None and (np.ndim(images) < 3 or len(images) != m):
            images = None
        places = torch.arange(min(m, len(split))) if index is None else index
        if len(places) != m and (images is None or labels is None or index is not None):
            raise DataError(
                f"{m} adversarial images but {len(places)} places in the split; add `images` and `labels`, or `index`"
            )
        own = split.select(places)
        originals: Any = own
        if images is not None:
            originals, labels = np.asarray(images), own.labels if labels is None else labels
            originals = originals[:, None] if originals.ndim == 3 else originals
        result = verify(
            model, adversarials, originals, labels, norm=norm, eps=radius, asked=len(split), claimed=claimed
        )
        if images is not None and index is None:
            return result  # whose place in the split nothing tells
    if found.get("labels") is not None:
        _compare(result, numbers(found["labels"], "labels"), own.labels)
    return result


def _of_result(
    model: nn.Module,
    own: Split,
    found: Mapping[str, Any],
    norm: Norm,
    eps: float | None,
    claimed: float | None,
) -> Verification:
    """A result of stresslens at a radius, by default at its largest; adversarials of larger radii
    break nothing at that."""
    originals, rows = check_inputs(model, own), _places(found["rows"], "rows", len(own))
    if len(set(rows.tolist())) != len(rows):
        raise DataError("rows name an image more than once")
    if len(rows) != len(found["adversarials"]):
        raise DataError(f"{len(found['adversarials'])} adversarial images but {len(rows)} rows")
    told = numbers(np.atleast_1d(found.get("radius", eps)), "radii")
    if told.shape not in ((1,), (len(own),)):
        raise DataError(
            f"radii have shape {tuple(told.shape)}; expected one, or one for each of the {len(own)} images"
        )
    smallest = torch.as_tensor(_radius(norm, told.expand(len(own))[rows], len(rows)))
    x = originals.floats(originals.images[:]).to(torch.float32)
    candidates, as_bytes, radius = x.clone(), False, torch.zeros(len(own), dtype=torch.float64)
    listed = torch.zeros(len(own), dtype=torch.bool)
    if len(rows):
        kept, as_bytes = _candidates(found["adversarials"], (len(rows), *own.shape))
        within = torch.ones_like(smallest, dtype=torch.bool) if eps is None else smallest <= eps * (1 + 1e-9)
        candidates[rows[within]], listed[rows[within]] = kept[within], True
        radius[rows[within]] = smallest[within] if eps is None else eps
    if eps is not None:
        check_radius(norm, eps)
    return _recounted(model, originals, candidates, listed, Ball(norm, radius), None, claimed, as_bytes)


def _recounted(
    model: nn.Module,
    originals: Split,
    candidates: Tensor,
    listed: Tensor,
    ball: Ball,
    asked: int | None,
    claimed: float | None,
    as_bytes: bool,
) -> Verification:
    """`candidates` (n, C, H, W) of the originals that are `listed` (n,); of the rest nothing but
    the original is judged."""
    first = next((p for p in model.parameters()), torch.empty(0))
    x = originals.floats(originals.images[:]).to(first.device, torch.float32)
    y, candidates, listed = (
        originals.labels.to(first.device),
        candidates.to(first.device),
        listed.to(first.device),
    )
    finite = torch.isfinite(candidates.flatten(1)).all(1)
    safe = torch.where(finite[:, None, None, None], candidates, x)
    with attacked(model):
        float32_logits = verdict_model(model)
        clean, logits = batched_logits(float32_logits, x), batched_logits(float32_logits, safe)
    right, fooled = clean.argmax(1) == y, listed & finite & (logits.argmax(1) != y)
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
        "n": max(asked or 0, len(x)),
        "bytes": as_bytes,
        "not finite": int((~finite).sum()),
        "outside the box": int((finite & ~in_box).sum()),
        "outside the ball": int((in_box & ~inside).sum()),
        "fooled outside": int((right & fooled & ~inside).sum()),
        "largest": float((size - radius).max()),
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
    """One radius, or one for each of n images. Raises ConfigError."""
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


def _places(values: Any, what: str, n: int) -> Tensor:
    """(m,) places among n images. Raises DataError."""
    places = np.asarray(values)
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise DataError(
            f"{what} is {places.dtype} of shape {places.shape}; expected whole numbers, one for each image"
        )
    if places.size and (places.min() < 0 or places.max() >= n):
        raise DataError(
            f"{what} runs from {places.min()} to {places.max()}; there are {n} images (0 to {n - 1})"
        )
    return torch.as_tensor(places.astype(np.int64))


def _compare(result: Verification, given: Tensor, labels: Tensor) -> None:
    """Adds a finding where a file's labels are others than the split's for the same images. Raises
    DataError."""
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
            f"{wrong} of {len(labels)} labels in the file differ from the split's: they may be the model's own predictions",
            len(labels),
            "Attack the true labels; an image that was wrong unattacked counts as broken.",
        )
        result.findings.insert(0, finding)


def _candidates(adversarials: Any, expected: tuple[int, ...]) -> tuple[Tensor, bool]:
    """Floats (m, C, H, W), and whether they were stored in 8 bits."""
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
            f"adversarial images are {candidates.dtype}; expected floats in [0, 1], or uint8 where 255 is white"
        )
    return candidates.to(torch.float32), False


def _findings(counts: Mapping[str, Any]) -> list[Finding]:
    m, images, n, found = counts["m"], counts["images"], counts["n"], []

    def add(audit: str, wrong: bool, evidence: str, remedy: str, severity: Any = "serious") -> None:
        found.append(
            Finding(
                audit,
                "sign" if wrong else "no sign",
                severity if wrong else "none",
                evidence,
                m,
                remedy if wrong else "",
            )
        )

    add(
        "finite",
        counts["not finite"] > 0,
        f"{counts['not finite']} of {m} images hold NaN or infinity",
        "Attack them again.",
    )
    add(
        "box",
        counts["outside the box"] > 0,
        f"{counts['outside the box']} of {m} images leave [0, 1]",
        "Clamp to [0, 1] in every step; these images are not counted.",
    )
    add(
        "ball",
        counts["outside the ball"] > 0,
        f"{counts['outside the ball']} of {m} images lie outside the ball, the farthest by {max(counts['largest'], 0):.4g}; "
        f"{counts['fooled outside']} would fool the model there",
        "Project onto the ball around the original image after every step, in pixel units; these images are not counted.",
    )
    add(
        "dropped images",
        images < n,
        f"{images} images of {n} asked for" if images < n else f"all {n} images are there",
        "A last partial batch, or failures left out: attack every image and count the missing as not robust or not attacked.",
        "minor",
    )
    if counts["bytes"]:
        found.append(
            Finding(
                "8 bits",
                "sign",
                "minor",
                f"the images are stored in 8 bits, which moves a pixel by up to {EIGHT_BIT / 2:.4f}: some attacks may be undone",
                m,
                "Store float32.",
            )
        )
    claimed, robust = counts["claimed"], counts["robust"]
    if claimed is not None:
        differs = abs(claimed - robust.value) * images >= 2
        add(
            "claimed accuracy",
            differs,
            f"claimed {100 * claimed:.1f} %, recounted {100 * robust.value:.1f} % of {images} images",
            "Publish the recounted figure, or the images that the claim rests on.",
        )
    return found
