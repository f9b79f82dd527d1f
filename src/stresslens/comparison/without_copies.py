"""Verdicts without the images that have a copy in an earlier split, from the files of the runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.schema import Contrast
from stresslens.comparison.tested_run import Tested, tested_of, with_test_images
from stresslens.comparison.verdict_changes import VerdictChanges
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import counted
from stresslens.evaluation.duplicates import copies_not_noted


@dataclass
class TestsWithoutCopies:
    """Reads the predictions of runs without the images that have a copy in an earlier split. `kept` says
    which images are left of the test sets that were read so far, by their fingerprint."""

    kept: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __call__(self, folder: RunFolder, split: str) -> Tested:
        """As `tested_of`. Raises ConfigError where the data of the run have copies whose positions were
        not noted, where nothing else is left, and where another run on the same images had other training
        images, and so other copies."""
        tested = tested_of(folder, split)
        data = tested.record.data
        if copies_not_noted(data):
            raise ConfigError(
                f"{folder.path}: an earlier version did not note which images are copies; "
                f"`stresslens evaluate {folder.path} --split {split}` notes them"
            )
        kept = np.ones(len(tested.labels), bool)
        kept[data.copies.get(split, [])] = False
        if not kept.any():
            raise ConfigError(f"{folder.path}: every {split} image has a copy in an earlier split")
        known = self.kept.setdefault(data.splits.get(split, data.fingerprint), kept)
        if not np.array_equal(kept, known):
            raise ConfigError(
                f"{folder.path}: other {split} images have a copy in an earlier split than for a run before "
                "it, because it was trained on other images; compare runs of the same training images"
            )
        record = with_test_images(tested.record, int(kept.sum()))
        return replace(tested, right=tested.right[kept], labels=tested.labels[kept], record=record)

    def changes(self, split: str, before: Sequence[Contrast], after: Sequence[Contrast]) -> VerdictChanges:
        """What leaving out the copies does to verdicts."""
        images = sum(int((~kept).sum()) for kept in self.kept.values())
        touched = (
            f"{counted(images, f'{split} image')} with a copy in an earlier split "
            f"{'is' if images == 1 else 'are'} left out; the models are those that were trained before."
        )
        change = "without the copies"
        return VerdictChanges("without_copies", change, touched, {"dropped": images}, before, after)
