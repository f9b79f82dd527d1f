"""The table of selection rules: its ranks by hand, and that a new row is all that a new rule needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stresslens.config import study_file
from stresslens.config.selection_rules import RULES, SelectionRule
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

Make = Callable[..., Task]
OBJECTIVE = {"adversarial": {"eps": 0.1, "attack": "fgsm"}}


def test_ranks_by_hand() -> None:
    figures = {"accuracy": 0.8, "loss": 0.6, "robust": 0.3}
    assert {name: rule.rank(figures) for name, rule in RULES.items()} == {
        "accuracy": (0.8, -0.6),
        "loss": (-0.6, 0.8),
        "robust": (0.3, 0.8),
    }


def test_what_follows_from_the_table() -> None:
    assert [rule.unit for rule in RULES.values()] == ["accuracy, %", "loss", "robust accuracy, %"]
    assert [name for name, rule in RULES.items() if rule.needs_robust_accuracy] == ["robust"]
    assert [name for name, rule in RULES.items() if rule.needs_equal_losses] == ["loss"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"train": {"select": "robst"}},
            r"train\.select: unknown rule \(did you mean 'robust'\? valid: .*last",
        ),
        ({"train": {"select": 3}}, r"train\.select: input should be a valid string, got 3"),
        (
            {"sweep": {"space": {"train.lr": [0.1, 1.0]}, "metric": "acuracy"}},
            r"sweep\.metric: unknown rule \(did you mean 'accuracy'\? valid: accuracy, auto, loss, robust\)",
        ),
    ],
    ids=["select", "no name", "metric"],
)
def test_an_unknown_rule_is_told_with_the_nearest(tmp_path: Path, values: Any, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        study_file.read_study(file)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> SelectionRule:
    """A rule that is not in the table: the mean of clean and robust accuracy."""
    rule = SelectionRule(
        "both",
        "mean accuracy",
        ("accuracy", "robust"),
        tie_breaker="loss",
        combine=lambda clean, robust: (clean + robust) / 2,
        is_share=False,
    )
    monkeypatch.setitem(RULES, "both", rule)
    return rule


def values_of(run: Path) -> list[float]:
    lines = RunFolder(run).read_lines(RunFolder(run).metrics)
    return [(line["validation"]["accuracy"] + line["validation"]["robust"]) / 2 for line in lines]


def test_a_new_rule_chooses_the_epoch(task_of: Make, both: SelectionRule) -> None:
    task = task_of("linear", epochs=200, lr=0.3, objective=OBJECTIVE, select="both", stop={"patience": 3})
    training = stages.carry_out(task).training
    values = values_of(task.folder)
    assert training.select == "both"
    assert training.chosen_epoch == values.index(max(values)) + 1 == len(values) - 3
    assert training.stopped == "no better mean accuracy on validation in 3 evaluations"


def test_a_new_rule_that_reads_robust_accuracy_needs_an_objective_for_it(
    task_of: Make, both: SelectionRule
) -> None:
    with pytest.raises(ConfigError, match=r"train\.select: both needs an objective with a norm and a radius"):
        succeeded(stages.carry_out(task_of("linear", select="both")))


@pytest.mark.slow
def test_a_new_rule_judges_the_trials_of_a_sweep(tmp_path: Path, both: SelectionRule) -> None:
    fixed = {"precision": "float32", "threads": 1, "memory_format": "contiguous", "device": "cpu"}
    study = {
        "data": {"digits": {"subset": 200}},
        "model": "linear",
        "train": {"epochs": 2, "objective": OBJECTIVE, "select": "both", **fixed},
        "sweep": {"settings": [{"train.lr": lr} for lr in (1e-5, 0.01, 0.1)], "metric": "both"},
    }
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(study))
    lines: list[str] = []
    folder = pipeline.run(study_file.read_study(file), out=tmp_path, say=lines.append)
    table = json.loads((folder / "run" / "sweep.json").read_text())
    values = [max(values_of(folder / "run" / "trials" / f"{number:03d}")) for number in range(3)]
    assert table["metric"] == "both"
    assert [trial["value"]["value"] for trial in table["trials"]] == values
    assert table["best"] == values.index(max(values))
    assert lines[0].startswith(f"run: trial 0 (1 of 3 ended): mean accuracy on validation {values[0]:.4f}")
    page = (folder / "report.html").read_text()
    assert "ranked only by both on validation" in page
    assert "mean accuracy</text>" in page


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_a_figure_that_is_nan_is_worse_than_all_others(rule: SelectionRule) -> None:
    figures = {"accuracy": 0.5, "loss": 1.0, "robust": 0.2}
    for name in (*rule.figures, *RULES[rule.tie_breaker].figures):
        assert rule.rank({**figures, name: math.nan}) < rule.rank(figures)
    lines = [{**figures, rule.figures[0]: math.nan}, figures, {**figures, rule.figures[0]: math.nan}]
    assert max(lines, key=rule.rank) is lines[1]
