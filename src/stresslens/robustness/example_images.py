"""Pictures of attacked images that a report shows: the original, the change made visible, and what
fools the model."""

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

from stresslens.core.files import write_atomically, write_json
from stresslens.core.panels import image_pixels
from stresslens.evaluation.example_images import COLUMNS, LOSSLESS, LOSSY, PNG, Way, encoded, sheet_of
from stresslens.robustness.example_file import AdversarialExample, AttackedImage
from stresslens.robustness.result_file import IndividualAttackCurve

PICTURES = 24
FIRST = 4
"""The first images of the split that were broken, which every model of a study shows."""
SIDE = 128
"""Pixels of the longer side beyond which a picture is made smaller."""
SHEET_BYTES = 300_000
WEBP: tuple[Way, ...] = (
    ("webp", {"lossless": True, "method": 2}),
    ("webp", {"quality": 95, "method": 2}),
    *LOSSY,
)
SCALES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def adversarial_rows(
    arrays: Mapping[str, NDArray[Any]], *, count: int = PICTURES
) -> tuple[list[int], list[AttackedImage]]:
    """Places among the kept adversarials of a result (the arrays of its result.npz), and what is
    known of each.

    The first `FIRST` broken images of the split ("first"), then others ("spread"): every smallest
    radius in turn, from each the class that was shown least. Images that are wrong unattacked are
    left out.
    """
    rows = arrays["rows"]
    smallest, labels = arrays["smallest"][rows], arrays["labels"][rows]
    by_index = [
        int(place) for place in np.argsort(arrays["index"][rows], kind="stable") if smallest[place] > 0
    ]
    first, rest = by_index[:FIRST], by_index[FIRST:]
    waiting = {
        radius: [place for place in rest if smallest[place] == radius] for radius in np.unique(smallest[rest])
    }
    shown = dict.fromkeys(map(int, labels), 0)
    for place in first:
        shown[int(labels[place])] += 1
    spread: list[int] = []
    while len(first) + len(spread) < count and any(waiting.values()):
        for places in waiting.values():
            if places and len(first) + len(spread) < count:
                place = min(places, key=lambda place: shown[int(labels[place])])
                places.remove(place)
                shown[int(labels[place])] += 1
                spread.append(place)
    spread.sort(key=lambda place: (smallest[place], place))
    return [*first, *spread], [
        *(_known(arrays, place, "first") for place in first),
        *(_known(arrays, place, "spread") for place in spread),
    ]


def _known(arrays: Mapping[str, NDArray[Any]], place: int, kind: Literal["first", "spread"]) -> AttackedImage:
    row = int(arrays["rows"][place])
    by = int(arrays["by"][row])
    return AttackedImage(
        kind=kind,
        index=int(arrays["index"][row]),
        truth=int(arrays["labels"][row]),
        clean_prediction=int(arrays["clean_prediction"][row]),
        clean_confidence=float(arrays["clean_confidence"][row]),
        prediction=int(arrays["adversarial_prediction"][place]),
        confidence=float(arrays["adversarial_confidence"][place]),
        eps=float(arrays["smallest"][row]),
        size=float(arrays["size"][place]),
        steps=int(arrays["steps"][row]),
        attack=str(arrays["names"][by]) if by >= 0 else "",
    )


def ladder_images(
    arrays: Mapping[str, NDArray[Any]], attacks: Sequence[IndividualAttackCurve]
) -> Iterator[tuple[tuple[int, int], AttackedImage]]:
    """Where each picture of the first image stands in a result's `ladder`, and what is known of it;
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
    """Writes examples.json and one sheet of pictures into `folder` (`<run>/robustness/<key>/examples`).

    originals, adversarials (m, C, H, W) float in [0, 1]; `images` are as `adversarial_rows` and
    `ladder_images` give them. Each entry
    has its place (left, top, width, height) in the sheet of the original, the change and the
    adversarial; the change is magnified by `scale` around grey. Small pictures lose nothing; larger
    ones are first made smaller, and the change is that of the small ones.
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
    place: dict[bytes, int] = {}  # the same picture, such as the original of a ladder, once
    cell_of = [place.setdefault(cell.tobytes(), len(place)) for cell in pixels]
    sheet = sheet_of(pixels[[cell_of.index(k) for k in range(len(place))]])
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
    write_atomically(folder / name, lambda file: file.write(content))
    write_json(folder / "examples.json", [entry.as_json() for entry in entries])


def _reduced(x: Tensor) -> Tensor:
    """No side longer than `SIDE`; of other channel counts than one and three the first channel."""
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
    """The largest of `SCALES` that keeps a change of this size within grey ± ½; ½ where even 1 does not."""
    fitting = [scale for scale in SCALES if scale * largest <= 0.5 + 1e-6]
    return 1.0 if math.isclose(largest, 0, abs_tol=1e-9) else float(max(fitting, default=0.5))
