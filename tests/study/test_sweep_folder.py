"""A sweep that finds trials in its folder: more or fewer than it asks for, a damaged journal, no
sweep.json, trials that failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresslens.config import study_file
from stresslens.core.errors import ConfigError, Notice, StresslensError, TrainingDiverged
from stresslens.study import pipeline

SLOW = pytest.mark.slow
SWEEP: dict[str, Any] = {"trials": 4, "space": {"train.lr": {"from": 1e-4, "to": 1.0, "log": True}}}
TRAIN = {"epochs": 1, "precision": "float32", "threads": 1, "memory_format": "contiguous"}


def swept(tmp_path: Path, lines: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    """sweep.json of the sweep with these changes, carried out in `tmp_path`."""
    sweep = {key: value for key, value in (SWEEP | changes.pop("sweep", {})).items() if value is not None}
    train = TRAIN | changes.pop("train", {})
    file = tmp_path / "s.yaml"
    base = {"data": {"digits": {"subset": 100}}, "model": "linear", "train": train, "sweep": sweep}
    file.write_text(yaml.safe_dump(base | changes))
    said = lines.append if lines is not None else lambda line: None
    pipeline.run(study_file.read_study(file), out=tmp_path, say=said)
    table: dict[str, Any] = json.loads((tmp_path / "s" / "run" / "sweep.json").read_text())
    return table


def results(table: dict[str, Any]) -> list[Any]:
    return [(trial["settings"], trial["status"], trial["value"]) for trial in table["trials"]]


def journal_of(tmp_path: Path) -> Path:
    return tmp_path / "s" / "run" / "trials" / "journal.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", pytest.param("tpe", marks=SLOW)])
def test_more_trials_are_those_of_as_many_at_once(tmp_path: Path, method: str) -> None:
    once, longer = tmp_path / "once", tmp_path / "longer"
    once.mkdir()
    longer.mkdir()
    many = 13 if method == "tpe" else 6  # the first ten of TPE are drawn at random
    all_at_once = swept(once, sweep={"method": method, "trials": many})
    before = swept(longer, sweep={"method": method, "trials": many - 3})
    lines: list[str] = []
    after = swept(longer, lines, sweep={"method": method, "trials": many})
    assert results(after) == results(all_at_once)
    assert after["best"] == all_at_once["best"]
    assert lines[0] == f"run: goes on with the {many - 3} trials that are there, to {many}"
    seed = longer / "s" / "run" / "seed-0"
    assert (seed / "model.safetensors").read_bytes() == (
        once / "s" / "run" / "seed-0" / "model.safetensors"
    ).read_bytes()
    kept = list((longer / "s" / "run").glob("earlier/best-of-*"))
    assert len(kept) == (before["best"] != after["best"])
    lines.clear()
    fewer = swept(longer, lines, sweep={"method": method, "trials": many - 3})
    assert results(fewer) == results(before)
    assert lines[0] == f"run: {many} trials were asked for before; the first {many - 3} count"


@pytest.mark.slow
def test_more_listed_settings_are_tried_after_the_first(tmp_path: Path) -> None:
    listed = [{"train.lr": lr} for lr in (0.001, 0.01, 0.1)]
    options = {"space": None, "trials": None}
    swept(tmp_path, sweep={**options, "settings": listed[:2]})
    table = swept(tmp_path, sweep={**options, "settings": listed})
    assert [trial["settings"] for trial in table["trials"]] == listed
    with pytest.raises(ConfigError, match="holds another sweep"):
        swept(tmp_path, sweep={**options, "settings": listed[::-1]})


@pytest.mark.slow
def test_halving_has_a_fixed_number_of_trials(tmp_path: Path) -> None:
    halving = {"method": "halving", "halving": {"epochs": 1, "factor": 2}}
    swept(tmp_path, sweep=halving, train={"epochs": 2})
    with pytest.raises(ConfigError, match="halving compares all trials"):
        swept(tmp_path, sweep={**halving, "trials": 6}, train={"epochs": 2})


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "garbage": (lambda text: text + b"\x00\xff garbage\n", 4),
    "other json": (lambda text: text + b'{"event": "sung", "trial": 0}\n[1, 2]\n', 4),
    "a trial that never began": (lambda text: text + b'{"event": "ended", "trial": 9, "value": 1}\n', 4),
    "a number that is none": (lambda text: text.replace(b'"trial": 1,', b'"trial": "x",'), 1),
    "doubled lines": (lambda text: text + b"".join(text.splitlines(keepends=True)[-3:]), 4),
    "all doubled": (lambda text: text + text, 4),
    "a cut line in the middle": (lambda text: _cut_line(text, 2), 1),
    "no line": (lambda text: b"not a journal\n", 0),
}


def _cut_line(text: bytes, number: int) -> bytes:
    lines = text.splitlines(keepends=True)
    lines[number] = lines[number][:20] + b"\n"
    return b"".join(lines)


FAST = ("garbage", "a cut line in the middle")


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "damage", [each if each in FAST else pytest.param(each, marks=SLOW) for each in DAMAGES]
)
def test_a_damaged_journal_is_used_as_far_as_it_is_valid(tmp_path: Path, damage: str) -> None:
    whole = swept(tmp_path)
    journal = journal_of(tmp_path)
    change, kept = DAMAGES[damage]
    damaged = change(journal.read_bytes())
    journal.write_bytes(damaged)
    with pytest.warns(Notice, match=rf"the sweep goes on with {kept} trials? of it"):
        again = swept(tmp_path)
    assert results(again) == results(whole)
    assert journal.with_name("journal.jsonl.damaged").read_bytes() == damaged
    assert results(swept(tmp_path)) == results(whole)  # without a Notice


@pytest.mark.slow
def test_a_journal_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    whole = swept(tmp_path)
    journal = journal_of(tmp_path)
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size * 2 // 3])
    assert results(swept(tmp_path)) == results(whole)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["nothing", "half", pytest.param("another form", marks=SLOW)])
def test_without_sweep_json_the_journal_counts(tmp_path: Path, left: str) -> None:
    whole = swept(tmp_path)
    file = tmp_path / "s" / "run" / "sweep.json"
    text, lines = file.read_text(), list[str]()
    if left == "nothing":
        file.unlink()
        again = swept(tmp_path, lines)
    else:
        file.write_text(text[: len(text) // 2] if left == "half" else "[1]")
        with pytest.warns(Notice, match="it is written again from the trials"):
            again = swept(tmp_path, lines)
    assert again == whole
    assert lines[0] == "run: sweep.json was missing; 4 trials are there"
    assert file.read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": {"seed": 1}},
        pytest.param({"sweep": {"space": {"train.lr": [0.1, 0.01]}}}, marks=SLOW),
        pytest.param({"train": {"epochs": 2}}, marks=SLOW),
        pytest.param({"data": {"digits": {"subset": 120}}}, marks=SLOW),
    ],
    ids=["seed", "space", "epochs", "data"],
)
def test_without_sweep_json_trials_of_another_sweep_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    swept(tmp_path)
    journal = journal_of(tmp_path).read_bytes()
    (tmp_path / "s" / "run" / "sweep.json").unlink()
    with pytest.raises(ConfigError, match="holds another sweep"):
        swept(tmp_path, **changes)
    assert journal_of(tmp_path).read_bytes().startswith(journal)


WILD = {"train.lr": 1e30, "train.optimizer": "sgd"}
TWO = {"epochs": 2, "loss": "mse"}


def test_a_trial_that_fails_is_told_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def loss(logits, y):\n    raise ValueError('not mine')\n")
    listed = [{"train.lr": 0.01}, {"train.loss": "own.py:loss"}, WILD]
    options = {"space": None, "trials": None, "metric": "accuracy"}
    lines: list[str] = []
    table = swept(tmp_path, lines, sweep={**options, "settings": listed}, train=TWO)
    assert [trial["status"] for trial in table["trials"]] == ["finished", "failed", "diverged"]
    reason = table["trials"][1]["reason"]
    assert "ValueError: not mine (own.py:2)" in reason
    assert any(f"failed: {reason}" in line for line in lines)
    assert reason in (tmp_path / "s" / "report.html").read_text().replace("&#39;", "'")
    assert swept(tmp_path, sweep={**options, "settings": listed}, train=TWO) == table
    with pytest.raises(StresslensError, match="no trial of the sweep could be trained: trial 0: ValueError"):
        swept(tmp_path, sweep={**options, "settings": [listed[1]]}, train=TWO, study="t")


@pytest.mark.slow
def test_trials_that_all_failed_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may have passed: a GPU in use, a full disk."""
    (tmp_path / "own.py").write_text(
        "import os\nfrom torch.nn.functional import cross_entropy\n\n\ndef loss(logits, y):\n"
        "    if 'IN_USE' in os.environ:\n        raise RuntimeError('CUDA error: in use')\n"
        "    return cross_entropy(logits, y)\n"
    )
    train = {"loss": "own.py:loss"}
    monkeypatch.setenv("IN_USE", "1")
    for _ in range(2):
        with pytest.raises(StresslensError, match="in use"):
            swept(tmp_path, train=train, sweep={"trials": 2})
    monkeypatch.delenv("IN_USE")
    lines: list[str] = []
    table = swept(tmp_path, lines, train=train, sweep={"trials": 2})
    assert [trial["status"] for trial in table["trials"]] == ["finished", "finished"]
    assert "run: every trial failed before; they are tried again" in lines
    assert swept(tmp_path, lines, train=train, sweep={"trials": 2}) == table


def test_what_no_trial_can_do_is_refused_before_it_begins(tmp_path: Path) -> None:
    options = {"space": {"train.lr": [0.1, 0.01]}}
    with pytest.raises(ConfigError, match=r"no trial can be trained.*lenet needs at least"):
        swept(tmp_path, sweep=options, model="lenet")
    assert not list(tmp_path.rglob("record.json"))


TINY = {"data": {"digits": {"subset": 100}}}
"""Images of 8×8 pixels, which lenet cannot take."""


def lines_with(tmp_path: Path, text: str) -> list[int]:
    lines = (tmp_path / "s.yaml").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if text in line]


def test_the_variant_that_no_trial_can_train_is_named_with_its_line(tmp_path: Path) -> None:
    runs: dict[str, Any] = {"good": {}, "bad": {"model": "lenet"}, "worse": {"model": "lenet"}}
    options = {"space": {"train.lr": [0.1, 0.01]}}
    with pytest.raises(ConfigError) as caught:
        swept(tmp_path, runs=runs, sweep=options, **TINY)
    said = str(caught.value)
    for name in ("bad", "worse"):
        line = lines_with(tmp_path, f"  {name}:")[0]
        assert f"s.yaml:{line}: runs.{name}: sweep: no trial can be trained: with none of" in said
    assert "runs.good" not in said
    assert said.count("lenet needs at least") == 2
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("listed", [False, True], ids=["choices", "listed"])
def test_each_choice_that_cannot_be_trained_is_named_with_its_line(tmp_path: Path, listed: bool) -> None:
    models = ["lenet", {"vit": {"heads": 3}}]
    options: dict[str, Any] = {"space": {"model": models}}
    if listed:
        options = {"space": None, "trials": None, "settings": [{"model": model} for model in models]}
    with pytest.raises(ConfigError) as caught:
        swept(tmp_path, sweep=options, **TINY)
    said = str(caught.value)
    (first, *_), (second, *_) = lines_with(tmp_path, "lenet"), lines_with(tmp_path, "vit:")
    second -= listed  # the name of the setting stands on the line before
    assert f's.yaml:{first}: model="lenet": model lenet cannot be built' in said
    assert f's.yaml:{second}: model={{"vit": {{"heads": 3}}}}: model vit cannot be built' in said


def test_where_some_choices_can_be_trained_the_others_are_told_and_it_goes_on(tmp_path: Path) -> None:
    """Also where the variant's own model is the one that cannot be trained."""
    listed = [{"model": "lenet"}, {"model": "linear"}]
    options = {"space": None, "trials": None, "settings": listed}
    lines: list[str] = []
    table = swept(tmp_path, lines, sweep=options, model="lenet", **TINY)
    assert [trial["status"] for trial in table["trials"]] == ["failed", "finished"]
    assert table["best"] == 1
    assert any("trial 0" in line and "failed: " in line and "lenet needs at least" in line for line in lines)
    assert "lenet needs at least" in table["trials"][0]["reason"]


def test_a_variant_with_other_mistakes_is_named(tmp_path: Path) -> None:
    """Without a validation split, trials cannot be compared."""
    runs: dict[str, Any] = {"good": {}, "bad": {"data": {"digits": {"subset": 100, "validation": 0}}}}
    with pytest.raises(ConfigError, match=r"s\.yaml:\d+: runs\.bad: sweep: trials are compared on"):
        swept(tmp_path, runs=runs, **TINY)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
def test_variants_whose_trials_all_fail_are_missing(tmp_path: Path) -> None:
    runs = {"good": {}, "bad": {"train.optimizer": "sgd", "train.loss": "mse"}}
    options = {"space": None, "trials": None, "settings": [{"train.lr": 1e30}], "metric": "accuracy"}
    with pytest.raises(TrainingDiverged, match="bad/seed-0: every trial of the sweep diverged"):
        swept(tmp_path, runs=runs, sweep=options, train={"epochs": 2})
    assert (
        json.loads((tmp_path / "s" / "good" / "seed-0" / "record.json").read_text())["status"] == "finished"
    )
    assert "every trial of the sweep diverged" in (tmp_path / "s" / "report.html").read_text()
