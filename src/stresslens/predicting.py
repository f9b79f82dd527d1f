"""Classes of picture files by a trained run, with calibrated probabilities, and which of them are unlike its training images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stresslens import evaluation, likeness
from stresslens.building import frame_of, open_model
from stresslens.core.data import Split
from stresslens.core.errors import DataError
from stresslens.core.pictures import SUFFIXES, Unreadable, decode, files_below, quietly, read
from stresslens.core.printing import printable
from stresslens.core.progress import advance
from stresslens.core.results import RunFolder, UnreadableRun, read_record
from stresslens.metrics.classification import log_softmax

BATCH = 128


@dataclass(frozen=True)
class Prediction:
    """One file: `classes` the likeliest first, with their probabilities; `p_like` is the share of images like the training images
    that are as odd as this one or odder, None where the run cannot say. Or `unreadable`: why it is no picture."""

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    p_like: float | None = None
    unlike: bool | None = None
    unreadable: str | None = None

    def as_json(self) -> dict[str, Any]:
        if self.unreadable is not None:
            return {"file": self.file, "unreadable": self.unreadable}
        ranked = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {"file": self.file, "predictions": ranked, "unlike": self.unlike, "p_like": self.p_like}


class Classifier:
    """A run's trained model with what was fitted on its validation images: the temperature, and what unlike images are."""

    def __init__(self, folder: RunFolder, *, trust: bool = False) -> None:
        """Raises UnreadableRun when files are missing or damaged, and DataError when no picture file has the images' channels."""
        self.card = folder.load_card()
        self.model = open_model(folder, trust=trust).eval()
        calibration = read_record(folder).get("calibration") or {}
        self.temperature = float(calibration.get("temperature", 1.0))
        self.calibrated_on = calibration.get("fitted_on")
        try:
            self.likeness: likeness.Likeness | None = likeness.Likeness.load(folder.likeness)
        except UnreadableRun:
            self.likeness = None
        self.frame = frame_of(folder)

    def classify(self, files: Iterable[Path], *, top: int = 3) -> Iterator[Prediction]:
        """A prediction for each file, in order, a batch at a time; files that are no whole picture are told among the others."""
        remaining = iter(files)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(remaining, BATCH)):
                with quietly():
                    pictures = list(pool.map(self._read, batch))
                images = [picture for picture in pictures if not isinstance(picture, str)]
                found = iter(self._classes(np.stack(images), top) if images else [])
                for file, picture in zip(batch, pictures):
                    if isinstance(picture, str):
                        yield Prediction(printable(str(file)), unreadable=picture)
                    else:
                        yield Prediction(printable(str(file)), *next(found))

    def _read(self, file: Path) -> np.ndarray | str:
        try:
            return decode(read(str(file)), self.frame).pixels
        except Unreadable as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _classes(self, images: np.ndarray, top: int) -> Iterator[tuple[tuple[tuple[str, float], ...], float | None, bool | None]]:
        x = torch.from_numpy(images).float() / 255
        split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
        logits, sample = likeness.observed(self.model, split, lambda: evaluation.logits_of(self.model, split).double().numpy())
        likes = self.likeness.p_values(sample) if self.likeness else [None] * len(x)
        for row, p_like in zip(np.exp(log_softmax(logits / self.temperature)), likes):
            best = np.argsort(-row, kind="stable")[:top]
            ranked = tuple((self.card.classes[k], float(row[k])) for k in best)
            unlike = None if self.likeness is None or p_like is None else bool(p_like <= self.likeness.rate)
            yield ranked, None if p_like is None else float(p_like), unlike


def picture_files(paths: Iterable[Path]) -> list[Path]:
    """The files given, and of folders every file below that is a picture by its name, in order. Raises DataError without any."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(entry.path for entry in files_below(str(path)) if os.path.splitext(entry.name)[1].lower() in SUFFIXES)
            advance(f"looking into {path}", len(below), len(below))
            if not below:
                raise DataError(f"{path} holds no picture; pictures end in {', '.join(sorted(SUFFIXES))}")
            found += map(Path, below)
        else:
            found.append(path)
    return found
