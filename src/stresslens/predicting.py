"""Classes of picture files by a trained run, with calibrated probabilities, and which of them are unlike its training images."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stresslens import evaluation, find, likeness
from stresslens.building import frame_of, open_model
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.pictures import SUFFIXES, Unreadable, decode, files_below, quietly, read
from stresslens.core.printing import printable
from stresslens.core.progress import advance
from stresslens.core.results import ModelCard, RunFolder, UnreadableRun, read_record
from stresslens.core.tapping import feature_layer
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

    def ask(self, captions: Sequence[str], templates: Sequence[str] = ("{}",)) -> None:
        """From here on the classes are these captions; probabilities are on the model's own scale, which no images calibrated.

        Raises ConfigError as `among` does.
        """
        plain = self.card.model if isinstance(self.card, ModelCard) else self.card.estimator
        self.model = among(self.model, captions, templates, called=find.named("models", plain)[0])
        self.card = replace(self.card, classes=list(captions))
        self.temperature, self.calibrated_on = 1.0, None
        if feature_layer(self.model, self.card.shape)[0] is self.model:
            self.likeness = None  # it knows the logits of other classes

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


def among(
    model: nn.Module, captions: Sequence[str], templates: Sequence[str] = ("{}",), *, called: str = "the model"
) -> nn.Sequential:
    """A model with a text side that classifies among these captions instead, as they are or in `templates`. The model given stays
    as it is, and its weights are shared.

    Raises ConfigError for fewer than two captions, empty, repeated or too similar ones, and for a model without a text side.
    """
    net = getattr(model, "net", model)
    if not hasattr(net, "tell_apart"):
        raise ConfigError(f"{called} has no text side to read captions; prompts are for openclip with `head: text`")
    if len(captions) < 2:
        raise ConfigError(f"{len(captions)} caption to choose from; give at least two")
    if empty := [place for place, caption in enumerate(captions, 1) if not caption.strip()]:
        raise ConfigError(f"caption {empty[0]} is empty")
    if repeated := [caption for place, caption in enumerate(captions) if caption in captions[:place]]:
        raise ConfigError(f"the caption {repeated[0]!r} is given twice")
    own: Any = copy.copy(net)
    own.tell_apart(captions, templates)
    own.text_features()
    front = [(name, part) for name, part in model.named_children() if net is not model and name != "net"]
    return nn.Sequential(OrderedDict([*front, ("net", own)]))


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
