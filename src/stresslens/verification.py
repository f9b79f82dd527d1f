"""Anybody's adversarial images counted again: ball and box, labels, dropped images, and the model's answers in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.admission import admitted
from stresslens.core.attacking import attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.data import Split, as_tensor
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.results import read_arrays
from stresslens.core.types import Estimate, Finding
from stresslens.metrics.intervals import wilson
from stresslens.search import judge_of, judged

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
    """A recount. `broken` (m,) which of the adversarial images hold; `robust` the share of the images that none breaks."""

    broken: np.ndarray
    robust: Estimate
    clean: Estimate
    findings: list[Finding]
    norm: Norm
    eps: float
    largest: float
    """The largest perturbation among those that fool the model."""


def read_adversarials(path: Path) -> dict[str, Any]:
    """The arrays of an npz file by what they are. Raises UnreadableRun, and ConfigError when there are no adversarial images."""
    arrays = read_arrays(path, f"there is no {path}")
    found = {what: arrays[name] for what, names in NAMES.items() for name in reversed(names) if name in arrays}
    if "adversarials" not in found:
        names = ", ".join(NAMES["adversarials"])
        raise ConfigError(f"{path} holds {', '.join(arrays) or 'nothing'}; expected an array of one of these names: {names}")
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

    `eps` is a radius, or one for each image; `asked` how many images the figure was to be about (default m), `claimed` the robust
    accuracy that was published. An image counts as broken when its adversarial lies in ball and box and the model, in float32 and
    evaluation mode, answers anything but the label. Raises ConfigError and DataError for what cannot be read.
    """
    originals = admitted(model, images, labels)
    candidates, as_bytes = _candidates(adversarials, originals)
    radius = torch.as_tensor(eps, dtype=torch.float64)
    if radius.ndim and radius.shape != (len(originals),):
        raise ConfigError(
            f"eps has shape {tuple(radius.shape)}; expected one radius, or one for each of the {len(originals)} images"
        )
    ball = Ball(norm, radius if radius.ndim else float(radius))
    first = next((p for p in model.parameters()), torch.empty(0))
    x = originals.floats(originals.images[:]).to(first.device, torch.float32)
    y, candidates = originals.labels.to(first.device), candidates.to(first.device)
    finite = torch.isfinite(candidates.flatten(1)).all(1)
    safe = torch.where(finite[:, None, None, None], candidates, x)
    with attacked(model):
        judge = judge_of(model)
        clean, logits = judged(judge, x), judged(judge, safe)
    right, fooled = clean.argmax(1) == y, finite & (logits.argmax(1) != y)
    in_box = finite & (safe >= 0).flatten(1).all(1) & (safe <= 1).flatten(1).all(1)
    inside = finite & in_box & ball.holds(safe, x)
    broken = right & fooled & inside
    size = ball.size(safe.double() - x.double())
    n = max(asked or 0, len(x))
    robust = wilson(int((right & ~broken).sum()), len(x))
    counts = {
        "m": len(x),
        "n": n,
        "bytes": as_bytes,
        "not finite": int((~finite).sum()),
        "outside the box": int((finite & ~in_box).sum()),
        "outside the ball": int((in_box & ~inside).sum()),
        "fooled outside": int((right & fooled & ~inside).sum()),
        "largest": float((size - radius.to(size.device)).max()),
        "claimed": claimed,
        "robust": robust,
        "unmoved": int((size == 0).sum()),
    }
    largest = float(size[broken].max()) if bool(broken.any()) else 0.0
    return Verification(
        broken.cpu().numpy(), robust, wilson(int(right.sum()), len(x)), _findings(counts), norm, float(radius.max()), largest
    )


def of_run(
    model: nn.Module, split: Split, found: Mapping[str, Any], *, norm: Norm | None, eps: float | None, claimed: float | None = None
) -> Verification:
    """The adversarials of a file against a run's model and split: the originals by the file's own `images`, else by its `index`
    into the split, else in file order."""
    adversarials = found["adversarials"]
    index = np.asarray(found["index"]) if "index" in found else np.arange(min(len(adversarials), len(split)))
    if "rows" in found:  # a result of stresslens: adversarials of the broken images among those of index
        rows = np.asarray(found["rows"])
        radius = np.asarray(found["radius"])[rows] if eps is None and "radius" in found else eps
        index, asked = index[rows], len(index)
    else:
        radius, asked = (found.get("radius") if eps is None else eps), len(split)
    if radius is None:
        raise ConfigError("the file names no radius; give --eps")
    norm = norm or (str(found["norm"]) if "norm" in found else None)  # type: ignore[assignment]
    if norm is None:
        raise ConfigError("the file names no norm; give --norm linf, l2 or l1")
    if len(index) != len(adversarials):
        raise DataError(
            f"{len(adversarials)} adversarial images but {len(index)} places in the split; add `images` and `labels`, or `index`"
        )
    if index.size and (index.min() < 0 or index.max() >= len(split)):
        raise DataError(f"index runs from {index.min()} to {index.max()}; the split has {len(split)} images")
    own = split.select(torch.as_tensor(index))
    images: Any = own
    labels = own.labels
    if "images" in found and len(found["images"]) == len(adversarials):
        images, labels = found["images"], torch.as_tensor(found["labels"]) if "labels" in found else own.labels
        images = Split(
            as_tensor(images).float() if as_tensor(images).dtype != torch.uint8 else as_tensor(images),
            labels.long(),
            255.0 if as_tensor(images).dtype == torch.uint8 else 1.0,
        )
    result = verify(model, adversarials, images, None, norm=norm, eps=radius, asked=asked, claimed=claimed)
    given = found.get("labels")
    if (
        given is not None
        and "rows" not in found
        and len(given) == len(own)
        and (wrong := int((torch.as_tensor(given) != own.labels).sum()))
    ):
        result.findings.insert(
            0,
            Finding(
                "labels",
                "sign",
                "serious",
                f"{wrong} of {len(own)} labels in the file differ from the split's: they may be the model's own predictions",
                len(own),
                "Attack the true labels; an image that was wrong unattacked counts as broken.",
            ),
        )
    return result


def _candidates(adversarials: Any, originals: Split) -> tuple[Tensor, bool]:
    candidates = as_tensor(adversarials)
    if candidates.ndim == 3:
        candidates = candidates[:, None]
    expected = (len(originals), *originals.shape)
    if tuple(candidates.shape) != expected:
        raise DataError(f"adversarial images have shape {tuple(candidates.shape)}; their originals {expected}")
    if candidates.dtype == torch.uint8:
        return candidates.float() / 255, True
    if not candidates.is_floating_point():
        raise DataError(f"adversarial images are {candidates.dtype}; expected floats in [0, 1], or uint8 where 255 is white")
    return candidates.to(torch.float32), False


def _findings(counts: Mapping[str, Any]) -> list[Finding]:
    m, n, found = counts["m"], counts["n"], []

    def add(audit: str, wrong: bool, evidence: str, remedy: str, severity: Any = "serious") -> None:
        found.append(
            Finding(audit, "sign" if wrong else "no sign", severity if wrong else "none", evidence, m, remedy if wrong else "")
        )

    add("finite", counts["not finite"] > 0, f"{counts['not finite']} of {m} images hold NaN or infinity", "Attack them again.")
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
        m < n,
        f"{m} images of {n} asked for" if m < n else f"all {n} images are there",
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
        differs = abs(claimed - robust.value) * m >= 2
        add(
            "claimed accuracy",
            differs,
            f"claimed {100 * claimed:.1f} %, recounted {100 * robust.value:.1f} % of {m} images",
            "Publish the recounted figure, or the images that the claim rests on.",
        )
    return found
