"""Commands of `stresslens train` one after the other: they share the folder runs/train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.report.load import load_study
from stresslens.report.summary import unfinished

Type = Callable[..., tuple[int, str, str]]

DIGITS = "{digits: {subset: 100}}"
FAST = ("train.epochs=1", "train.precision=float32", "train.threads=1")


@pytest.mark.slow
def test_a_variant_is_asked_for_its_own_seeds_alone(type_: Type, tmp_path: Path) -> None:
    for words in (("linear", "repeats=2"), ("linear", "--seed", "5"), ("mlp", "--seed", "7")):
        assert type_("train", DIGITS, *words, *FAST, "-q")[0] == 0
    folder = tmp_path / "runs" / "train"
    written = json.loads((folder / "study.json").read_text())
    assert written["seeds"] == [0, 1, 5, 7]
    assert sorted(written["own_seeds"].values()) == [[0, 1, 5], [7]]
    assert unfinished(load_study(folder)) == []
    assert "did not finish" not in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_seed_that_was_asked_for_and_has_no_record_did_not_finish(type_: Type, tmp_path: Path) -> None:
    for words in (("linear", "repeats=2"), ("mlp", "--seed", "7")):
        assert type_("train", DIGITS, *words, *FAST, "-q")[0] == 0
    folder = tmp_path / "runs" / "train"
    (second,) = folder.glob("*linear*/seed-1")
    (second / "record.json").unlink()
    assert [(row.seed, row.status) for row in unfinished(load_study(folder))] == [(1, "not started")]


@pytest.mark.slow
def test_the_name_of_a_variant_has_its_settings_and_stays(type_: Type, tmp_path: Path) -> None:
    first = ("train", DIGITS, "linear", *FAST, "train.lr=0.01", "train.batch_size=64", "-q")
    code, out, _ = type_(*first)
    name = "digits subset=100 … lr=0.01 batch_size=64 #"
    assert code == 0
    assert out.startswith(f"accuracy: {name}")
    type_("train", "digits", "{mlp: {widths: [8]}}", "train.epochs=1", "train.lr=0.02", "-q")
    folder = tmp_path / "runs" / "train"
    names = [variant.name for variant in load_study(folder).variants]
    assert names[0] == "digits mlp widths=[8] epochs=1 lr=0.02"
    assert names[1].startswith(name)
    assert f"accuracy: {names[1]}" in out
    assert names[0] in type_("compare", "runs/train")[1]


def test_name_alone_names_the_variant(type_: Type, tmp_path: Path) -> None:
    assert type_("train", DIGITS, "linear", *FAST, "-q", "--name", "mine")[0] == 0
    code, out, _ = type_("train", DIGITS, "linear", *FAST, "train.lr=0.3", "-q", "--name", "other one")
    assert code == 0
    assert out.startswith("other_one: ")
    assert {run.parent.name for run in (tmp_path / "runs" / "train").glob("*/seed-0")} == {
        "mine",
        "other_one",
    }
    code, _, err = type_("train", DIGITS, "linear", *FAST, "train.lr=0.3", "-q", "--name", "mine")
    assert code == 2
    assert "train.lr: 0.001 there, 0.3 now" in err
    assert "another name for the study or the run" in err


@pytest.mark.slow
def test_a_folder_whose_name_holds_the_overrides_goes_on(type_: Type, tmp_path: Path) -> None:
    """Earlier versions added them to `--name`."""
    words = ("train", DIGITS, "linear", *FAST, "-q")
    before = ",".join(["mine", *FAST])
    assert type_(*words, "--name", before)[0] == 0
    assert type_(*words, "--name", "mine")[0] == 0
    assert [run.parent.name for run in (tmp_path / "runs" / "train").glob("*/seed-0")] == [before]
    other = ("train", DIGITS, "linear", *FAST, "train.lr=0.3", "-q")
    assert type_(*other, "--name", "mine")[0] == 0
    assert type_(*words, "--name", "mine")[0] == 0
    names = {run.parent.name for run in (tmp_path / "runs" / "train").glob("*/seed-0")}
    assert names == {before, "mine"}


def test_a_grid_of_the_command_line_makes_several_runs(type_: Type, tmp_path: Path) -> None:
    for words in ((), ("--name", "mine")):
        assert type_("train", DIGITS, "linear", *FAST, "grid.train.lr=[0.1, 0.01]", "-q", *words)[0] == 0
    names = [run.parent.name for run in (tmp_path / "runs" / "train").glob("*/seed-0")]
    assert sum(name.startswith("mine,") for name in names) == 2
    assert len(names) == 4
