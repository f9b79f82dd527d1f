"""The journal of a sweep: lines of its own, and those that earlier versions let Optuna write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stresslens.config.search_space import Sweep
from stresslens.core.errors import Notice
from stresslens.evaluation.record import Failure
from stresslens.study.sweep_journal import JOURNAL, OPTUNAS_JOURNAL, READ, SweepJournal, has_journal

HERE = Path(__file__).parents[1] / "made_before" / "sweeps"
SPACE = {
    "train.lr": {"from": 1e-4, "to": 1.0, "log": True},
    "train.batch_size": {"from": 16, "to": 64, "step": 16},
    "train.clip": {"from": 0.5, "to": 9},
    "train.accumulate": {"from": 1, "to": 4, "log": True},
    "train.optimizer": ["adam", {"momentum": {"weight_decay": 1e-4}}],
}
VALUES = {"data": "digits", "model": "linear", "train": {"epochs": 2}}


def opened(folder: Path, *, largest: bool = True, **sweep: Any) -> SweepJournal:
    made = Sweep(**{"space": SPACE, "where": ["train.batch_size <= 48"], "trials": 20} | sweep)
    return SweepJournal(folder, made, VALUES, Path(), largest=largest)


def before(folder: Path, method: str) -> tuple[list[Any], bytes]:
    """The trials of a whole sweep of version 0.3.0, and a journal that it wrote, put into the folder."""
    shutil.copy(HERE / f"{method}.log", folder / OPTUNAS_JOURNAL)
    return json.loads((HERE / f"{method}.json").read_text()), (HERE / f"{method}.log").read_bytes()


@pytest.mark.parametrize(("method", "done"), [("random", 4), ("tpe", 11), ("halving", 6)])
def test_a_journal_of_optuna_goes_on_as_it_would_have(tmp_path: Path, method: str, done: int) -> None:
    trials, written = before(tmp_path, method)
    assert has_journal(tmp_path)
    journal = opened(tmp_path, method=method)
    assert len(journal) == journal.ended == done
    for number, (settings, status, value) in enumerate(trials[:done]):
        assert number in journal
        assert journal.settings(number) == settings
        assert journal.status(number) == status
        if status == "finished":
            assert journal.value(number) == value
    if method == "halving":
        assert set(journal.at_rung(1)) == set(range(6))
        assert set(journal.at_rung(2)) == {n for n, trial in enumerate(trials) if trial[1] == "finished"}
    for number, (settings, _, value) in enumerate(trials[done:], done):
        assert journal.ask() == number
        assert journal.settings(number) == settings
        journal.tell(number, value)
    assert (tmp_path / READ).read_bytes() == written
    assert not (tmp_path / OPTUNAS_JOURNAL).exists()
    again = opened(tmp_path, method=method)
    assert [again.settings(n) for n in range(len(trials))] == [trial[0] for trial in trials]


def test_a_damaged_journal_of_optuna_counts_as_far_as_it_is_valid(tmp_path: Path) -> None:
    trials, written = before(tmp_path, "random")
    lines = written.splitlines(keepends=True)
    damaged = b"".join([*lines[:5], lines[5][:40] + b"\n", *lines[6:]])
    (tmp_path / OPTUNAS_JOURNAL).write_bytes(damaged)
    with pytest.warns(Notice, match="goes on with 2 trials of it"):
        journal = opened(tmp_path)
    assert len(journal) == journal.ended == 2
    journal.ask()
    assert journal.settings(2) == trials[2][0]
    assert (tmp_path / f"{OPTUNAS_JOURNAL}.damaged").read_bytes() == damaged


def test_a_kill_between_reading_and_renaming_changes_nothing(tmp_path: Path) -> None:
    before(tmp_path, "random")
    journal = opened(tmp_path)
    journal.ask()
    held = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / READ).rename(tmp_path / OPTUNAS_JOURNAL)
    assert len(opened(tmp_path)) == 5
    assert (tmp_path / JOURNAL).read_bytes() == held


def test_every_line_is_one_event_in_words_that_stay(tmp_path: Path) -> None:
    journal = opened(tmp_path, largest=False)
    for _ in range(3):
        journal.ask()
    journal.report(0, 1, 0.5)
    journal.report(1, 1, None)
    journal.note(1, Failure(message="out of memory"))
    journal.tell(1, None)
    journal.tell(0, 0.25)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [(line["event"], line["trial"]) for line in lines] == [
        *(("began", 0), ("began", 1), ("began", 2), ("rung", 0), ("rung", 1)),
        *(("failed", 1), ("ended", 1), ("ended", 0)),
    ]
    for each in (journal, opened(tmp_path, largest=False)):
        assert [each.status(n) for n in range(3)] == ["finished", "failed", "running"]
        assert each.running == [2]
        assert each.best == 0
        assert each.at_rung(1) == {0: 0.5, 1: float("inf")}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_value_that_is_no_number_counts_as_none(tmp_path: Path, value: float) -> None:
    journal = opened(tmp_path)
    journal.ask()
    journal.report(0, 1, value)
    journal.tell(0, value)
    assert journal.best is None
    assert opened(tmp_path).at_rung(1) == {0: float("-inf")}


@pytest.mark.slow
def test_a_sweep_at_random_never_imports_optuna(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['optuna'] = None\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_sweep_journal import opened\n"
        "journal = opened(Path(sys.argv[1]))\n"
        "print(journal.ask(), journal.ask())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "0 1\n", done.stderr
