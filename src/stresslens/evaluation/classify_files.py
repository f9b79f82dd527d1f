"""Batch inference on image files: classes, calibrated probabilities, out-of-distribution marks."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stresslens.core.answers import NOT_FINITE, answered
from stresslens.core.errors import DataError, Notice
from stresslens.core.fingerprint import image_keys
from stresslens.core.image_files import (
    MOST_PIXELS,
    Frame,
    Unreadable,
    decode,
    files_below,
    quietly,
    read_image,
)
from stresslens.core.image_formats import SUFFIXES, is_image, left_out
from stresslens.core.pieces import FLOAT, at_most
from stresslens.core.progress import advance
from stresslens.core.run_paths import runs_in
from stresslens.core.text import printable
from stresslens.evaluation.guarantees import Guaranteed, Wanted, guarantees_of
from stresslens.evaluation.predictor import Predictor
from stresslens.metrics.classification import log_softmax
from stresslens.metrics.conformal import IMAGE_DRAWS, uniform_of

BATCH = 128
"""Image files that are decoded together."""
SMALL = 2**14
"""Bytes of a file that is decoded sooner than another thread could take it."""
COPIES = 3
"""Copies of the images of a batch that are there at a time."""


class Upload(NamedTuple):
    """The content of an image file that was sent, and the name that came with it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    `classes` holds class names and their probabilities, the most probable first. `ood_p_value` is
    the conformal p-value of `ood.OODDetector`, in (0, 1]; it is None if the run has no OOD
    detector. `out_of_distribution` is True if the p-value is at most the detector's false-alarm
    rate. Without an answer (`core.answers`) there are no classes. If the file cannot be read as an
    image, only `unreadable` is set: it holds the reason.
    """

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    ood_p_value: float | None = None
    out_of_distribution: bool | None = None
    unreadable: str | None = None
    guaranteed: Guaranteed | None = None
    """Its set of classes and the like, where these were asked for."""

    def as_json(self) -> dict[str, Any]:
        if self.unreadable is not None:
            return {"file": self.file, "unreadable": self.unreadable}
        missing = {} if self.classes else {"no_answer": NOT_FINITE}
        ranked = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {
            "file": self.file,
            "predictions": ranked,
            **missing,
            "out_of_distribution": self.out_of_distribution,
            "ood_p_value": self.ood_p_value,
            "unlike": self.out_of_distribution,  # the names of version 0.1, for one more version
            "p_like": self.ood_p_value,
            **(self.guaranteed.as_json() if self.guaranteed else {}),
        }


class Classifier:
    """Classifies image files with a predictor, its temperature and its OOD detector, and with what is
    wanted of its predictions."""

    def __init__(
        self, predictor: Predictor, wanted: Wanted | None = None, *, most_pixels: int = MOST_PIXELS
    ) -> None:
        """Images of more than `most_pixels` are unreadable. Raises DataError if image files cannot have the
        number of channels that the model takes, and ConfigError for what is wanted where no image calibrates
        it."""
        self.facts, self.answer, self.ood = predictor.facts, predictor.answer, predictor.ood
        self.size = at_most(BATCH, COPIES * FLOAT * math.prod(self.facts.shape))
        self.guarantees = (
            guarantees_of(wanted, predictor.calibration(), self.facts.classes) if wanted else None
        )
        frame = Frame.of(self.facts.shape, self.facts.fit, self.facts.run, self.facts.white)
        self.frame = replace(frame, most_pixels=most_pixels)

    def classify(self, files: Iterable[Path | Upload], *, top: int = 3) -> Iterator[Prediction]:
        """Yields one prediction for each file, in order, a batch at a time.

        A file that cannot be read as an image gives a prediction with `unreadable` set.
        """
        remaining = iter(files)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(remaining, self.size)):
                small = all(isinstance(each, Upload) and len(each.content) < SMALL for each in batch)
                with quietly():
                    decoded = list((map if small else pool.map)(self.read, batch))
                images = [image for image in decoded if not isinstance(image, str)]
                predicted = iter(self.of_pixels(np.stack(images), top) if images else [])
                for file, image in zip(batch, decoded):
                    name = printable(str(file))
                    if isinstance(image, str):
                        yield Prediction(name, unreadable=image)
                    else:
                        yield replace(next(predicted), file=name)

    def read(self, file: Path | Upload) -> np.ndarray | str:
        """The pixels of a file as the model takes them, (C, H, W) uint8, or why it cannot be read."""
        try:
            content = file.content if isinstance(file, Upload) else read_image(str(file))
            return decode(content, self.frame).pixels
        except Unreadable as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def of_pixels(self, images: np.ndarray, top: int = 3) -> Iterator[Prediction]:
        """As `of_images`, for pixels (N, C, H, W) uint8."""
        return self.of_images(torch.from_numpy(images).float() / 255, top)

    def of_images(self, x: Tensor, top: int = 3) -> Iterator[Prediction]:
        """Yields one prediction, without a file's name, for each image of x (N, C, H, W) in [0, 1]."""
        logits, sample = self.answer(x)
        known = answered(logits)
        probabilities = np.exp(log_softmax(np.where(known[:, None], logits, 0) / self.facts.temperature))
        p_values = self.ood.p_values(sample) if self.ood else None
        guaranteed: Sequence[Guaranteed | None] = [None] * len(x)
        if self.guarantees is not None:
            masked = np.where(known[:, None], probabilities, np.nan)
            guaranteed = self.guarantees.of(masked, uniform_of(image_keys(x).numpy(), IMAGE_DRAWS))
        for i, row in enumerate(probabilities):
            best = np.argsort(-row, kind="stable")[:top]
            ranked = tuple((self.facts.classes[k], float(row[k])) for k in best if known[i])
            if self.ood is None or p_values is None:
                yield Prediction("", ranked, guaranteed=guaranteed[i])
            else:
                p = float(p_values[i])
                yield Prediction("", ranked, p, p <= self.ood.rate, guaranteed=guaranteed[i])


def picture_files(paths: Iterable[Path], others: list[str] | None = None) -> list[Path]:
    """The given files, and all image files below the given folders, sorted.

    A file below a folder is an image file if its name has a known suffix; the other files are added
    to `others`. Images in the folders of runs are left out, with a Notice. Raises DataError if a
    folder holds no image file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            everything = sorted(entry.path for entry in files_below(str(path)))
            below = [file for file in everything if is_image(file)]
            rest = [file for file in everything if not is_image(file)]
            advance(f"looking into {path}", len(below), len(below))
            if not below:
                said = "; ".join(filter(None, left_out(map(printable, rest)) or ()))
                raise DataError(
                    f"{path} holds no image file; their names end in {', '.join(sorted(SUFFIXES))}"
                    + (f". {said}" if said else "")
                )
            if others is not None:
                others += map(printable, rest)
            files += _outside_runs(path, [Path(name) for name in below])
        else:
            files.append(path)
    return files


def _outside_runs(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files below a folder that do not lie in the folder of a run."""
    known: dict[Path, bool] = {}

    def in_run(place: Path) -> bool:
        if place not in known:
            known[place] = bool(runs_in(place)) or (place != folder and in_run(place.parent))
        return known[place]

    kept = [file for file in files if not in_run(file.parent)]
    if left := len(files) - len(kept):
        warnings.warn(
            f"{folder}: {left} image files in the folders of runs are left out", Notice, stacklevel=3
        )
    if not kept:
        raise DataError(f"{folder} holds no image file outside the folders of runs")
    return kept
