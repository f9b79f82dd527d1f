"""Commands of `stresslens train` one after the other: they share the folder runs/train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from stresslens.report.load import load_study
from stresslens.report.summary import unfinished

Type = Callable[..., tuple[int, str, str]]

DIGITS = "{digits: {subset: 100}}"
FAST = ("train.epochs=1", "train.precision=float32", "train.threads=1")


def test_a_variant_is_asked_for_its_own_seeds_alone(type_: Type, tmp_path: Path) -> None:
    for words in (("linear", "repeats=2"), ("linear", "--seed", "5"), ("mlp", "--seed", "7")):
        assert type_("train", DIGITS, *words, *FAST, "-q")[0] == 0
    folder = tmp_path / "runs" / "train"
    written = json.loads((folder / "study.json").read_text())
    assert written["seeds"] == [0, 1, 5, 7]
    assert sorted(written["own_seeds"].values()) == [[0, 1, 5], [7]]
    assert unfinished(load_study(folder)) == []
    assert "did not finish" not in (folder / "report.html").read_text()


def test_a_seed_that_was_asked_for_and_has_no_record_did_not_finish(type_: Type, tmp_path: Path) -> None:
    for words in (("linear", "repeats=2"), ("mlp", "--seed", "7")):
        assert type_("train", DIGITS, *words, *FAST, "-q")[0] == 0
    folder = tmp_path / "runs" / "train"
    (second,) = folder.glob("*linear*/seed-1")
    (second / "record.json").unlink()
    assert [(row.seed, row.status) for row in unfinished(load_study(folder))] == [(1, "not started")]
