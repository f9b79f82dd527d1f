"""Repeats of a study over seeds, folds and splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresslens.config import study_file
from stresslens.config.repeats import Repeats
from stresslens.core.errors import ConfigError


def test_repeats_over_folds_and_splits(tmp_path: Path) -> None:
    def read(repeats: str) -> study_file.Study:
        (tmp_path / "s.yaml").write_text(f"data: digits\nmodel: linear\nrepeats: {repeats}\n")
        return study_file.read_study(tmp_path / "s.yaml")

    assert read("{folds: 5, times: 2}").seeds == list(range(10))
    assert read("{splits: 4}").seeds == [0, 1, 2, 3]
    assert read("{folds: 5, only: [3]}").seeds == [3]
    assert read("3").repeats is None
    for wrong in ("{}", "{folds: 5, splits: 3}", "{times: 2}"):
        with pytest.raises(ConfigError, match="give either folds or splits"):
            read(wrong)
    with pytest.raises(ConfigError, match="repeats"):
        read("{folds: 1}")


def test_one_repeat_is_the_same_however_many_there_are() -> None:
    assert (
        Repeats(folds=5, times=2).alone(3)
        == Repeats(folds=5, times=9).alone(3)
        == {"folds": 5, "times": 1, "only": [3]}
    )
    assert Repeats(splits=10).alone(4) == Repeats(splits=99).alone(4)
    for repeats in (Repeats(folds=5, times=3), Repeats(splits=12)):
        for seed in repeats.seeds:
            alone = Repeats(**repeats.alone(seed))
            assert alone.wrong() is None
            assert alone.seeds == [seed]


@pytest.mark.parametrize(
    "text",
    ["{splits: 2, times: 3}", "{folds: 3, only: []}", "{folds: 3, only: [1, 1]}", "{folds: 3, only: [99]}"],
    ids=str,
)
def test_repeats_that_cannot_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(f"data: digits\nrepeats: {text}\n")
    with pytest.raises(ConfigError, match=r"repeats: (only|times)"):
        study_file.read_study(tmp_path / "s.yaml")
