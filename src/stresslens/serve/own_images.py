"""The images of a run's own data: those it was tested on, and the nearest of those it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.answers import answer_in_words, confidence, predicted
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.panels import image_pixels
from stresslens.core.pass_memory import images_at_once
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import sampled_positions
from stresslens.core.text import counted
from stresslens.core.thumbnails import data_address
from stresslens.evaluation.model_info import ModelInfo
from stresslens.evaluation.network_features import OfNetwork, features_of_network
from stresslens.evaluation.run_data import same_data_of
from stresslens.evaluation.scores import Predictions

AMONG = 4096
"""Training images, drawn at random, among which the nearest are looked for."""
NEAREST = 6
BATCH = 128
"""Training images whose features are computed before the next request is looked at."""
USUAL = 512
"""Training images whose own nearest one says what is near."""
FILTERS = ("all", "right", "wrong", "unsure")
WORDS = (
    (0.5, "very near: most training images are farther from their own nearest one"),
    (0.9, "about as near as training images are to each other"),
    (0.99, "farther than nine in ten training images are from their own nearest one"),
    (1.0, "farther than 99 in 100 training images are from their own nearest one"),
)
"""The share of training images that are nearer to their own nearest one, at most, and what it means."""


class OwnImages:
    """The data of the run in a folder, loaded when they are first asked for."""

    def __init__(self, path: Path, facts: ModelInfo, model: nn.Module, *, trust: bool) -> None:
        self.path, self.facts, self.model, self.trust = path, facts, model, trust

    @cached_property
    def _opened(self) -> Data | str:
        """The data, or why there are none, in a sentence."""
        folder = RunFolder(self.path)
        if not folder.record.is_file():
            return "An exported model comes without its images."
        try:
            return same_data_of(folder, trust=self.trust)
        except (StresslensError, OSError) as error:
            return f"The images of this run cannot be shown: {error}"

    @property
    def data(self) -> Data:
        """Raises ConfigError with the reason where there are none."""
        if isinstance(self._opened, str):
            raise ConfigError(self._opened)
        return self._opened

    @cached_property
    def _tested(self) -> tuple[str, Split, Predictions]:
        """Name, images and predictions of the split that the page shows: test, or else validation."""
        for name in ("test", "validation"):
            if name in self.data.splits and RunFolder(self.path).predictions(name).is_file():
                found = Predictions.of_arrays(RunFolder(self.path).load_predictions(name))
                return name, self.data.splits[name], found.calibrated(self.facts.temperature)
        raise ConfigError("The run has no predictions of held-out images; `stresslens evaluate` makes them.")

    def image(self, position: int) -> tuple[Tensor, str]:
        """An image of the tested split, (1, C, H, W) in [0, 1], and the name of its class. Raises
        ConfigError where there is none."""
        name, split, _ = self._tested
        if not 0 <= position < len(split):
            raise ConfigError(f"There is no {name} image {position}; they are 0 to {len(split) - 1}.")
        return split.floats(split.images[position : position + 1]), self.facts.classes[
            int(split.labels[position])
        ]

    def page(self, which: str, of_class: str, number: int, size: int) -> dict[str, Any]:
        """The images of a page, counted from 0: thumbnails, true and predicted classes."""
        name, split, found = self._tested
        answers, sure = predicted(found.scores), confidence(found.probabilities)
        kept: NDArray[np.bool_] = np.ones(len(answers), dtype=bool)
        if which in ("right", "wrong"):
            kept = (answers == found.labels) == (which == "right")
        if of_class in self.facts.classes:
            kept &= found.labels == self.facts.classes.index(of_class)
        rows = np.nonzero(kept)[0]
        if which == "unsure":
            rows = rows[np.argsort(sure[rows], kind="stable")]
        here = rows[number * size : (number + 1) * size]
        images = []
        if len(here):
            pixels = image_pixels(split.floats(split.images[torch.from_numpy(found.index[here])]))
            for row, shown in zip(here, pixels):
                images.append(
                    {
                        "position": int(found.index[row]),
                        "truth": self.facts.classes[int(found.labels[row])],
                        "answer": answer_in_words(int(answers[row]), self.facts.classes),
                        "sure": float(sure[row]),
                        "right": bool(answers[row] == found.labels[row]),
                        "picture": data_address(shown),
                    }
                )
        return {"split": name, "total": len(rows), "images": images}

    def preparations(self) -> Iterator[str]:
        """Computes what `nearest` needs, a little at a time, and says how far it is. What was computed is
        kept when the iterator is left."""
        if not isinstance(self._opened, str):
            yield from self._steps

    @cached_property
    def _steps(self) -> Iterator[str]:
        return self._prepared()

    def _prepared(self) -> Iterator[str]:
        train = self.data.train
        self._known = train.select(sampled_positions(len(train), AMONG, 0))
        self._features: OfNetwork = features_of_network(self.model, self._known.shape)
        size, parts, done = images_at_once(self.model, self._known.shape, BATCH), [], 0
        for batch in self._known.batches(size):
            parts.append(_unit(self._features(batch.x)))
            done += len(batch.x)
            yield f"Looking at training images: {done:,} of {len(self._known):,} …"
        self._units = torch.cat(parts)
        cosine = self._units[:USUAL] @ self._units.T
        rows = torch.arange(len(cosine))
        cosine[rows, rows] = -2
        self._usual = np.sort(1 - cosine.amax(1).double().numpy())

    def nearest(self, x: Tensor, answer: str) -> dict[str, Any]:
        """The training images nearest to x (1, C, H, W), by the cosine of the network's features. Raises
        ConfigError without data."""
        _ = self.data
        for _ in self.preparations():
            pass
        cosine = (_unit(self._features(x)) @ self._units.T)[0].nan_to_num(-2)
        found = cosine.topk(min(NEAREST, len(cosine)))
        beside = self._known.select(found.indices)
        pixels = image_pixels(beside.floats(beside.images[:]))
        labels = [self.facts.classes[int(k)] for k in beside.labels]
        distances = (1 - found.values).clamp_min(0).tolist()
        images = [
            {"picture": data_address(shown), "label": label, "distance": distance, "same": label == answer}
            for shown, label, distance in zip(pixels, labels, distances)
        ]
        nearer = float(np.searchsorted(self._usual, distances[0]) / len(self._usual))
        words = next(words for share, words in WORDS if nearer <= share)
        same = labels.count(answer)
        return {
            "images": images,
            "said": f"{same} of the {counted(len(labels), 'nearest training image')} "
            f"{'is' if same == 1 else 'are'} labelled {answer}. The first is {words}.",
            "how": f"By the cosine of the network's last features, among {len(self._known):,} training "
            f"images. Its distance is {distances[0]:.3f}; half of them have another within "
            f"{float(np.median(self._usual)):.3f}.",
        }


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features, dim=1)
