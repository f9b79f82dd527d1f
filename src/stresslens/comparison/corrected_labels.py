"""Verdicts with corrected labels: the same predictions are scored again, and changes are said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from stresslens.comparison.schema import Contrast
from stresslens.comparison.tested_run import Tested, with_test_images
from stresslens.comparison.verdict_changes import VerdictChanges
from stresslens.config.run_config import read_run_data
from stresslens.core.answers import predicted
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.label_corrections import LabelCorrections
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import image_names, pooled
from stresslens.evaluation.record import read_record
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
        record = with_test_images(read_record(folder), int(kept.sum()))
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

    def changes(self, split: str, before: Sequence[Contrast], after: Sequence[Contrast]) -> VerdictChanges:
        """What the corrections do to verdicts."""
        corrected, dropped = len(self.corrected), len(self.dropped)
        touched = (
            f"{self.corrections.file.name}: {corrected} {split} labels corrected, "
            f"{dropped} {split} images dropped; the models are those that were trained before."
        )
        facts = {"file": str(self.corrections.file), "corrected": corrected, "dropped": dropped}
        return VerdictChanges("corrections", "the corrections", touched, facts, before, after)
