"""Verdicts with corrected labels: the same predictions are scored again, and changes are said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stresslens.comparison.schema import Contrast
from stresslens.comparison.tested_run import Tested
from stresslens.config.run_config import read_run_data
from stresslens.config.run_names import ShortNames
from stresslens.core.answers import predicted
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.label_corrections import LabelCorrections
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import image_names, pooled
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.run_data import DataPlace, pooled_positions, undivided_data_of
from stresslens.metrics.classification import Labels


@dataclass
class CorrectedTests:
    """Reads the predictions of runs, scored by corrected labels, without the images that are dropped.

    `trust` and `data` are as in `evaluation.run_data.data_of`. `corrected` and `dropped` are the places,
    among all images of the data set, of the tested images that were read so far.
    """

    corrections: LabelCorrections
    trust: bool = False
    data: DataPlace = None
    corrected: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    _known: dict[str, tuple[Data, Split, Labels]] = field(default_factory=dict)

    def __call__(self, folder: RunFolder, split: str) -> Tested:
        """As `tested_of`. Raises ConfigError if the data of the run have changed, and DataError for
        corrections that do not belong to them."""
        tested = folder.load_predictions(split)
        data, whole, labels = self._labels(folder)
        places = pooled_positions(folder, split, data, whole, tested)
        now = labels[places]
        kept = now >= 0
        self.corrected.update(places[kept & (now != tested["labels"])].tolist())
        self.dropped.update(places[~kept].tolist())
        if not kept.any():
            raise ConfigError(f"{self.corrections.file} drops every {split} image of {folder.path}")
        right = predicted(tested["scores"]) == now
        record = _with_test_images(read_record(folder), int(kept.sum()))
        return Tested(right[kept], now[kept], split, record)

    def _labels(self, folder: RunFolder) -> tuple[Data, Split, Labels]:
        """The undivided data of a run, its pooled images and their corrected labels; read once for runs of
        the same data."""
        key = json.dumps(read_run_data(folder.config).data, sort_keys=True)
        if key not in self._known:
            data = undivided_data_of(folder, trust=self.trust, data=self.data)
            whole = pooled(data)
            given = whole.labels.cpu()
            labels = self.corrections.of_labels(image_names(data), given, data.classes)
            self._known[key] = data, whole, torch.as_tensor(labels).numpy()
        return self._known[key]


def _with_test_images(record: RunRecord, count: int) -> RunRecord:
    """The record, whose division of the data, if it has one of its own, has `count` test images."""
    if record.data.division is None:
        return record
    division = record.data.division.model_copy(update={"test": count})
    return record.model_copy(update={"data": record.data.model_copy(update={"division": division})})


@dataclass(frozen=True)
class VerdictChanges:
    """What corrections of `corrected` tested labels, and `dropped` images, do to the verdicts `before`."""

    file: Path
    split: str
    corrected: int
    dropped: int
    before: Sequence[Contrast]
    after: Sequence[Contrast]

    def renamed(self, names: ShortNames) -> VerdictChanges:
        """With the short names of variants."""
        before, after = (
            [Contrast.model_validate(names.replaced(each.as_json())) for each in contrasts]
            for contrasts in (self.before, self.after)
        )
        return replace(self, before=before, after=after)

    @property
    def changed(self) -> list[tuple[Contrast, Contrast]]:
        """The contrasts, before and after, that are decided in another way."""
        after = {(c.contrast, c.a, c.b): c for c in self.after}
        pairs = [(c, after[c.contrast, c.a, c.b]) for c in self.before if (c.contrast, c.a, c.b) in after]
        return [pair for pair in pairs if _decided(pair[0]) != _decided(pair[1])]

    @property
    def sentences(self) -> list[str]:
        """How many labels were corrected, how many verdicts survive, and those that do not."""
        touched = (
            f"{self.file.name}: {self.corrected} {self.split} labels corrected, "
            f"{self.dropped} {self.split} images dropped; the models are those that were trained before."
        )
        if not self.before:
            return [touched]
        changed = self.changed
        survive = f"{len(self.before) - len(changed)} of {len(self.before)} verdicts survive the corrections."
        return [touched, survive, *(f"Before: {a.verdict}. Now: {b.verdict}." for a, b in changed)]

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "corrected": self.corrected,
            "dropped": self.dropped,
            "before": [contrast.model_dump(mode="json", exclude_unset=True) for contrast in self.before],
            "changed": [[a.verdict, b.verdict] for a, b in self.changed],
            "sentences": self.sentences,
        }


def _decided(contrast: Contrast) -> int:
    """1 if b is better, -1 if a is, 0 if they are not distinguishable."""
    return int(np.sign(contrast.difference.value)) if contrast.real else 0
