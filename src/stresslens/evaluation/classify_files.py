"""Classes of picture files by a run or its export, with calibrated probabilities, and which are
unlike its training images."""

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

from stresslens.core.errors import DataError
from stresslens.core.image_files import SUFFIXES, Frame, Unreadable, decode, files_below, quietly, read_image
from stresslens.core.progress import advance
from stresslens.core.text import printable
from stresslens.evaluation.predictor import Predictor
from stresslens.metrics.classification import log_softmax

BATCH = 128


@dataclass(frozen=True)
class Prediction:
    """One file: `classes` the likeliest first, with their probabilities; `p_like` is the share of
    images like the training images that are as odd as this one or odder, None where the run cannot
    say. Or `unreadable`: why it is no picture."""

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
    """A trained model with what was fitted on its validation images: the temperature, and what
    unlike images are."""

    def __init__(self, answering: Predictor) -> None:
        """Raises DataError when no picture file has the images' channels."""
        self.facts, self.answer, self.likeness = answering.facts, answering.answer, answering.likeness
        self.frame = Frame.of(self.facts.shape, self.facts.fit, self.facts.run)

    def classify(self, files: Iterable[Path], *, top: int = 3) -> Iterator[Prediction]:
        """A prediction for each file, in order, a batch at a time; files that are no whole picture
        are told among the others."""
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
            return decode(read_image(str(file)), self.frame).pixels
        except Unreadable as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _classes(
        self, images: np.ndarray, top: int
    ) -> Iterator[tuple[tuple[tuple[str, float], ...], float | None, bool | None]]:
        x = torch.from_numpy(images).float() / 255
        logits, sample = self.answer(x)
        likes = self.likeness.p_values(sample) if self.likeness else [None] * len(x)
        for row, p_like in zip(np.exp(log_softmax(logits / self.facts.temperature)), likes):
            best = np.argsort(-row, kind="stable")[:top]
            ranked = tuple((self.facts.classes[k], float(row[k])) for k in best)
            unlike = None if self.likeness is None or p_like is None else bool(p_like <= self.likeness.rate)
            yield ranked, None if p_like is None else float(p_like), unlike


def picture_files(paths: Iterable[Path]) -> list[Path]:
    """The files given, and of folders every file below that is a picture by its name, in order.
    Raises DataError without any."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(
                entry.path
                for entry in files_below(str(path))
                if os.path.splitext(entry.name)[1].lower() in SUFFIXES
            )
            advance(f"looking into {path}", len(below), len(below))
            if not below:
                raise DataError(f"{path} holds no picture; pictures end in {', '.join(sorted(SUFFIXES))}")
            found += map(Path, below)
        else:
            found.append(path)
    return found
