"""The section on a sweep: which settings matter, a chart for each, every trial; from a file that
anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from folders import estimate, write_json, write_study
from pages import page_of

from stresslens.core.errors import ConfigError


def trial(number: int, settings: dict[str, Any], value: float | None, **changes: Any) -> dict[str, Any]:
    shown = None if value is None else estimate(value, n=359)
    return {
        "number": number,
        "settings": settings,
        "status": "finished",
        "epochs": 5,
        "seconds": 2.5,
        "value": shown,
    } | changes


SPACE = {
    "train.lr": {"from": 1e-5, "to": 1.0, "log": True},
    "train.optimizer": {"choices": ["adam", {"momentum": {"weight_decay": 1e-4}}]},
    "train.batch_size": {"from": 16, "to": 64, "step": 16},
}


def sweep(**changes: Any) -> dict[str, Any]:
    optimizers = ["adam", {"momentum": {"weight_decay": 1e-4}}]
    trials = [
        trial(k, {"train.lr": 10.0 ** (k - 5), "train.optimizer": optimizers[k % 2]}, 0.9 + k / 100)
        for k in range(5)
    ]
    trials += [
        trial(
            5,
            {"train.lr": 1.0, "train.optimizer": "adam"},
            None,
            status="diverged",
            epochs=None,
            seconds=None,
        )
    ]
    share = estimate(0.71, spread=0.15, n=6, method="t over trials")
    said = ["train.lr explains most of the differences in how trials did (0.71, 0.56 to 0.86, over 6 trials)"]
    table = {"n": 6, "rows": [{"setting": "train.lr", "share": share, "real": True}], "said": said}
    asked = {"sweep": {"space": SPACE, "where": ["train.batch_size <= 32"]}}
    best = {
        "format": 1,
        "run": "a",
        "method": "tpe",
        "metric": "accuracy",
        "size": 6,
        "asked": asked,
        "best": 4,
    }
    return best | {"trials": trials, "importance": table} | changes


def study_with(tmp_path: Path, table: Any) -> Path:
    study = write_study(tmp_path, ["a", "b"])
    write_json(study / "run0" / "sweep.json", table)
    return study


def test_the_page_says_which_settings_matter(tmp_path: Path) -> None:
    html, page = page_of(study_with(tmp_path, sweep()))
    assert "settings" in page.sections
    assert page.sections.index("settings") < page.sections.index("curves")
    assert "train.lr explains most of the differences in how trials did" in page.text
    assert "6 trials (tpe), ranked only by accuracy on validation" in page.text
    assert "Drawn from: train.lr: 1e-05 to 1, evenly in its logarithm; train.optimizer: adam, " in page.text
    assert "train.batch_size: 16 to 64 in steps of 16; train.batch_size <= 32." in page.text
    for title in (
        "How much each setting explains",
        "Validation against train.lr",
        "Validation against train.optimizer",
    ):
        assert title in html
    assert "train.lr, logarithmic" in page.text
    rows = html[html.index("Trials of a<") :].split("<tr>")[2:]
    assert [row[row.index('"row">') + 6 :].split()[0].split("<")[0] for row in rows[:6]] == [
        "4",
        "3",
        "2",
        "1",
        "0",
        "5",
    ]
    assert "best" in rows[0]
    assert "diverged" in rows[5]
    assert "94.0" in rows[0]
    assert len(html.encode()) < 200_000


def test_two_hundred_trials_and_no_more(tmp_path: Path) -> None:
    trials = [trial(k, {"train.lr": (k + 1) / 1000}, 0.5 + k / 1000) for k in range(230)]
    html, page = page_of(study_with(tmp_path, sweep(trials=trials, best=229, size=230)))
    assert "30 more are in sweep.json" in page.text
    assert html.count('<th scope="row">229') == 1
    assert '<th scope="row">29<' not in html[html.index("Trials of a<") : html.index("30 more")]


def test_a_loss_has_no_interval_and_a_sweep_under_way_no_best(tmp_path: Path) -> None:
    trials = [trial(0, {"k": True}, 0.31), trial(1, {"k": False}, None, status="running")]
    trials[0]["value"] |= {"low": None, "high": None}
    _, page = page_of(
        study_with(tmp_path, sweep(trials=trials, metric="loss", best=None, importance=None, size=8))
    )
    assert "2 trials (tpe, of 8 requested)" in page.text
    assert "0.3100" in page.text
    assert "running" in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    table = sweep(trials=[trial(k, {bad: f"{bad}{k}"}, 0.5) for k in range(3)])
    table["importance"]["said"] = [bad]
    html, page = page_of(study_with(tmp_path, table))
    assert bad not in html
    assert len(page.raw["script"]) == 1


@pytest.mark.parametrize("table", [{"format": 2}, [], {"trials": [{"number": "x"}]}], ids=json.dumps)
def test_a_damaged_file_is_named(tmp_path: Path, table: Any) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        page_of(study_with(tmp_path, table))


def test_the_head_says_which_settings_the_sweep_chose(tmp_path: Path) -> None:
    _, page = page_of(study_with(tmp_path, sweep()))
    head = page.text.split("Results on the test split")[0]
    said = "a: the sweep chose train.lr = 0.1, train.optimizer = adam: trial 4 of 6; accuracy 94.0 % ("
    assert said in " ".join(head.split()).replace("\u00a0", " ")


def test_equal_trials_have_no_winner(tmp_path: Path) -> None:
    trials = [trial(k, {"train.lr": k / 10}, value) for k, value in enumerate((0.9, 0.94, 0.94, 0.94))]
    _, page = page_of(study_with(tmp_path, sweep(trials=trials, best=1)))
    said = "trial 1 of 4, the first of 3 that are equally good; accuracy 94.0 % ("
    assert said in " ".join(page.text.split()).replace("\u00a0", " ")


def test_a_sweep_without_a_best_trial_chose_nothing(tmp_path: Path) -> None:
    _, page = page_of(study_with(tmp_path, sweep(best=None)))
    assert "the sweep chose" not in page.text


def test_choices_in_a_list_are_drawn_as_categories(tmp_path: Path) -> None:
    trials = [trial(k, {"train.batch_size": (32, 128)[k % 2], "train.lr": 0.1 + k}, 0.9) for k in range(4)]
    for given in ([32, 128], {"choices": [32, 128]}):
        space = {"train.batch_size": given, "train.lr": {"from": 0.1, "to": 9}}
        html, _ = page_of(
            study_with(tmp_path, sweep(trials=trials, asked={"sweep": {"space": space}}, best=0))
        )
        assert "Validation against train.batch_size: median, lowest and highest (trials)" in html
        assert "32 (2)" in html
        assert "Validation against train.lr</figcaption>" in html
