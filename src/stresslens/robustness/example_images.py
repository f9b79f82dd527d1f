"""Adversarial examples for the report: writes an image file with originals, magnified changes and
adversarial images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from stresslens.core.files import write_bytes, write_json
from stresslens.core.panels import image_pixels
from stresslens.evaluation.example_images import COLUMNS, LOSSLESS, LOSSY, PNG, Way, encoded, sheet_of
from stresslens.robustness.example_file import AdversarialExample, AttackedImage
from stresslens.robustness.result_file import IndividualAttackCurve

EXAMPLES = 24
"""The largest number of examples."""
FIRST = 4
"""The number of examples that are the first broken images of the split. They are likely to be the
same for all models of a study."""
SIDE = 128
"""Images whose longer side has more pixels than this are reduced to it."""
SHEET_BYTES = 300_000
WEBP: tuple[Way, ...] = (
    ("webp", {"lossless": True, "method": 2}),
    ("webp", {"quality": 95, "method": 2}),
    *LOSSY,
)
SCALES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def adversarial_rows(
    arrays: Mapping[str, NDArray[Any]], *, count: int = EXAMPLES
) -> tuple[list[int], list[AttackedImage]]:
    """Selects examples from a result (the arrays of its result.npz). Returns their positions among
    the adversarial images, and their entries.

    It takes the first `FIRST` broken images of the split ("first"), then others ("spread"): one of
    each minimal radius in turn, of the class that has the fewest examples so far. Images that are
    misclassified without attack are left out.
    """
    rows = arrays["rows"]
    minimal_radius, labels = arrays["smallest"][rows], arrays["labels"][rows]
    by_index = [
        int(position)
        for position in np.argsort(arrays["index"][rows], kind="stable")
        if minimal_radius[position] > 0
    ]
    first, rest = by_index[:FIRST], by_index[FIRST:]
    remaining = {
        radius: [position for position in rest if minimal_radius[position] == radius]
        for radius in np.unique(minimal_radius[rest])
    }
    shown = dict.fromkeys(map(int, labels), 0)
    for position in first:
        shown[int(labels[position])] += 1
    spread: list[int] = []
    while len(first) + len(spread) < count and any(remaining.values()):
        for positions in remaining.values():
            if positions and len(first) + len(spread) < count:
                position = min(positions, key=lambda position: shown[int(labels[position])])
                positions.remove(position)
                shown[int(labels[position])] += 1
                spread.append(position)
    spread.sort(key=lambda position: (minimal_radius[position], position))
    return [*first, *spread], [
        *(_entry(arrays, position, "first") for position in first),
        *(_entry(arrays, position, "spread") for position in spread),
    ]


def _entry(
    arrays: Mapping[str, NDArray[Any]], position: int, kind: Literal["first", "spread"]
) -> AttackedImage:
    row = int(arrays["rows"][position])
    by = int(arrays["by"][row])
    return AttackedImage(
        kind=kind,
        index=int(arrays["index"][row]),
        truth=int(arrays["labels"][row]),
        clean_prediction=int(arrays["clean_prediction"][row]),
        clean_confidence=float(arrays["clean_confidence"][row]),
        prediction=int(arrays["adversarial_prediction"][position]),
        confidence=float(arrays["adversarial_confidence"][position]),
        eps=float(arrays["smallest"][row]),
        size=float(arrays["size"][position]),
        steps=int(arrays["steps"][row]),
        attack=str(arrays["names"][by]) if by >= 0 else "",
    )


def ladder_images(
    arrays: Mapping[str, NDArray[Any]], attacks: Sequence[IndividualAttackCurve]
) -> Iterator[tuple[tuple[int, int], AttackedImage]]:
    """The position (attack, radius) in a result's `ladder` of each image there, and its entry;
    `attacks` are the result's individual attacks."""
    for a, attack in enumerate(attacks):
        for level, row in enumerate(attack.rows):
            image = AttackedImage(
                kind="ladder",
                index=int(arrays["index"][0]),
                truth=int(arrays["labels"][0]),
                clean_prediction=int(arrays["clean_prediction"][0]),
                clean_confidence=float(arrays["clean_confidence"][0]),
                prediction=int(arrays["ladder_prediction"][a, level]),
                confidence=float(arrays["ladder_confidence"][a, level]),
                eps=row.eps,
                size=float(arrays["ladder_size"][a, level]),
                steps=0,
                attack=attack.label,
            )
            yield (a, level), image


def save_adversarial_examples(
    folder: Path,
    originals: Tensor | NDArray[Any],
    adversarials: Tensor | NDArray[Any],
    images: Sequence[AttackedImage],
) -> None:
    """Writes examples.json and one image file with all examples into `folder`
    (`<run>/robustness/<key>/examples`).

    originals, adversarials (m, C, H, W) float in [0, 1]; `images` (m) are the entries from
    `adversarial_rows` and `ladder_images`. Each entry of examples.json has the boxes (left, top,
    width, height) of the original, the change and the adversarial image in the file. The change is
    magnified by `scale` around grey. Small images are saved without loss. Images larger than `SIDE`
    are reduced first, and the change is that of the reduced images.
    """
    if not len(originals) == len(adversarials) == len(images):
        raise ValueError(
            f"{len(originals)} originals, {len(adversarials)} adversarials and {len(images)} facts"
        )
    if not images:
        return
    before, after = (
        _reduced(torch.as_tensor(x).float().cpu().clamp(0, 1)) for x in (originals, adversarials)
    )
    change = after - before
    scales = [_scale(float(size)) for size in change.abs().flatten(1).amax(1)]
    magnified = 0.5 + change * torch.tensor(scales).reshape(-1, 1, 1, 1)
    cells = torch.stack([before, magnified, after], 1).flatten(0, 1)  # (3 m, C, H, W)
    pixels = image_pixels(cells)
    height, width = pixels.shape[1:3]
    cells_seen: dict[bytes, int] = {}  # the same pixels, such as the original of a ladder, appear once
    cell_of = [cells_seen.setdefault(cell.tobytes(), len(cells_seen)) for cell in pixels]
    sheet = sheet_of(pixels[[cell_of.index(k) for k in range(len(cells_seen))]])
    name, content = encoded(sheet, WEBP if max(height, width) > LOSSLESS else (PNG, *WEBP), SHEET_BYTES)
    boxes = [(cell % COLUMNS * width, cell // COLUMNS * height, width, height) for cell in cell_of]
    reduced = (height, width) != tuple(originals.shape[2:])
    entries = [
        AdversarialExample(
            **image.model_dump(),
            file=name,
            original=a,
            change=b,
            adversarial=c,
            scale=scale,
            reduced=reduced,
        )
        for image, scale, a, b, c in zip(images, scales, boxes[::3], boxes[1::3], boxes[2::3])
    ]
    write_bytes(folder / name, content)
    write_json(folder / "examples.json", [entry.as_json() for entry in entries])


def _reduced(x: Tensor) -> Tensor:
    """The images with no side longer than `SIDE`. Unless there are three channels, only the first
    is kept."""
    x = x if x.shape[1] == 3 else x[:, :1]
    height, width = x.shape[2:]
    if max(height, width) <= SIDE:
        return x
    size = (
        max(1, round(SIDE * height / max(height, width))),
        max(1, round(SIDE * width / max(height, width))),
    )
    return interpolate(x, size=size, mode="bilinear", antialias=True)


def _scale(largest: float) -> float:
    """The largest of `SCALES` that keeps a change of this size within grey ± ½; ½ if there is
    none."""
    fitting = [scale for scale in SCALES if scale * largest <= 0.5 + 1e-6]
    return 1.0 if math.isclose(largest, 0, abs_tol=1e-9) else float(max(fitting, default=0.5))
