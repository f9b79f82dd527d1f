"""Verdicts without the images that have a copy in an earlier split, from the files of the runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stresslens.comparison.schema import Contrast
from stresslens.comparison.tested_run import Tested, tested_of, with_test_images
from stresslens.comparison.verdict_changes import VerdictChanges
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import counted
from stresslens.evaluation.duplicates import tells_of_copies


@dataclass
class TestsWithoutCopies:
    """Reads the predictions of runs without the images that have a copy in an earlier split. `dropped`
    are the copies of the test sets that were read so far, by the fingerprint of the data."""

    dropped: dict[str, int] = field(default_factory=dict)

    def __call__(self, folder: RunFolder, split: str) -> Tested:
        """As `tested_of`. Raises ConfigError where the data of the run have copies whose positions were
        not noted, or where nothing else is left."""
        tested = tested_of(folder, split)
        data = tested.record.data
        if not data.copies and any(map(tells_of_copies, data.findings)):
            raise ConfigError(
                f"{folder.path}: an earlier version did not note which images are copies; "
                f"`stresslens evaluate {folder.path} --split {split}` notes them"
            )
        kept = np.ones(len(tested.labels), bool)
        kept[data.copies.get(split, [])] = False
        if not kept.any():
            raise ConfigError(f"{folder.path}: every {split} image has a copy in an earlier split")
        self.dropped[data.fingerprint] = int((~kept).sum())
        record = with_test_images(tested.record, int(kept.sum()))
        return replace(tested, right=tested.right[kept], labels=tested.labels[kept], record=record)

    def changes(self, split: str, before: Sequence[Contrast], after: Sequence[Contrast]) -> VerdictChanges:
        """What leaving out the copies does to verdicts."""
        images = sum(self.dropped.values())
        touched = (
            f"{counted(images, f'{split} image')} with a copy in an earlier split "
            f"{'is' if images == 1 else 'are'} left out; the models are those that were trained before."
        )
        change = "without the copies"
        return VerdictChanges("without_copies", change, touched, {"dropped": images}, before, after)
