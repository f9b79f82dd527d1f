"""Runs on the same test images with other copies are not paired image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stresslens.comparison import without_copies
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import DataRecord, RunRecord, write_record
from stresslens.evaluation.scores import Predictions

LABELS = np.repeat([0, 1], 50)


def run(folder: Path, copies: list[int]) -> RunFolder:
    """A run with right answers, whose test images have copies at these positions."""
    made = RunFolder(folder)
    Predictions(np.eye(2)[LABELS], LABELS, np.arange(100)).save(made.predictions("test"))
    data = DataRecord(fingerprint=folder.name, splits={"test": "same"}, copies={"test": copies})
    write_record(made, RunRecord(format=1, status="finished", stages={}, data=data))
    return made


def test_the_same_copies_are_left_out_and_counted_once(tmp_path: Path) -> None:
    read = without_copies.TestsWithoutCopies()
    tested = [read(run(tmp_path / name, [0, 50]), "test") for name in "ab"]
    assert [len(each.right) for each in tested] == [98, 98]
    assert read.changes("test", [], []).touched.startswith("2 test images with a copy")


def test_other_copies_on_the_same_images_are_refused(tmp_path: Path) -> None:
    read = without_copies.TestsWithoutCopies()
    read(run(tmp_path / "a", [0, 50]), "test")
    with pytest.raises(ConfigError, match=r"b: other test images have a copy .* trained on other images"):
        read(run(tmp_path / "b", [49, 99]), "test")
