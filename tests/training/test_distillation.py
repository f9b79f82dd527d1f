"""Distillation from another run: its equation, the order of runs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stresslens as sl
from stresslens.config import registry, study_file
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json
from stresslens.study import pipeline, stages
from stresslens.training.autotune import compute_config
from stresslens.training.task import Task
from stresslens.training.teacher import open_teacher

STUDY: dict[str, Any] = {
    "data": {"digits": {}},
    "model": {"mlp": {"widths": [8]}},
    "train": {"epochs": 1, "subset": {"images": 100}, "precision": "float32"},
    "runs": {
        "student": {"model.widths": [4], "train.objective": {"distillation": {"run": "teacher"}}},
        "teacher": {},
    },
}
TAUGHT = {"distillation": {"run": "teacher"}}


def study(**changes: Any) -> study_file.Study:
    return study_file.expand_study({**STUDY, **changes}, name="taught", base=Path.cwd())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_gradient_is_that_of_hintons_second_section(temperature: float, alpha: float) -> None:
    """alpha T² · 1/(N T) (q - p) of the soft targets p, and (1 - alpha)(softmax - label)/N."""
    torch.manual_seed(0)
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    taught = torch.randn(5, 3, dtype=torch.float64)
    options = {"run": "teacher", "temperature": temperature, "alpha": alpha}
    objective = registry.resolve("objectives", {"distillation": options})
    objective(model=lambda x: logits, x=x, y=y, teacher=lambda x: taught).backward()
    soft = (logits / temperature).softmax(1) - (taught / temperature).softmax(1)
    hard = logits.softmax(1) - F.one_hot(y, 3)
    expected = alpha * temperature * soft / 5 + (1 - alpha) * hard / 5
    assert logits.grad is not None
    assert torch.allclose(logits.grad, expected.detach())


def test_a_teacher_gets_no_gradient() -> None:
    teacher, net = nn.Linear(4, 3), nn.Linear(4, 3)
    objective = registry.resolve("objectives", {"distillation": {"run": "teacher"}})
    objective(model=net, x=torch.ones(2, 4), y=torch.tensor([0, 1]), teacher=teacher).backward()
    assert net.weight.grad is not None
    assert teacher.weight.grad is None


def test_the_teacher_is_trained_first_and_each_seed_has_its_own(tmp_path: Path) -> None:
    folder = pipeline.run(study(repeats=2), out=tmp_path)
    records = [read_json(folder / run / f"seed-{k}" / "record.json") for run in STUDY["runs"] for k in (0, 1)]
    assert [record["status"] for record in records] == ["finished"] * 4
    config = (folder / "student" / "seed-0" / "config.yaml").read_text()
    assert "run: teacher" in config
    again = pipeline.run(study(repeats=2), out=tmp_path)  # finished: nothing is done
    assert [read_json(again / "student" / f"seed-{k}" / "record.json") for k in (0, 1)] == records[:2]


def test_a_teacher_in_a_folder(tmp_path: Path) -> None:
    first = pipeline.run(study(runs={"teacher": {}}), out=tmp_path)
    objective = {"distillation": {"run": str(first / "teacher")}}
    folder = pipeline.run(
        study(study="later", runs={"student": {"train.objective": objective}}), out=tmp_path
    )
    assert read_json(folder / "student" / "seed-0" / "record.json")["status"] == "finished"


def test_a_teacher_of_other_classes_or_images_is_refused(
    task_of: Callable[..., Task], tmp_path: Path
) -> None:
    folder = tmp_path / "tests" / "teacher" / "seed-0"
    stages.carry_out(task_of("linear", epochs=1, folder=folder))
    objective = {"distillation": {"run": "teacher"}}
    task = task_of("linear", objective=objective, folder=folder.parents[1] / "student" / "seed-0")
    data, compute = task.data, compute_config(task)
    assert data is not None
    assert open_teacher(task, data, compute) is not None
    with pytest.raises(
        ConfigError, match=r"first that differs is '0', there 'a'; teacher and student need the same classes"
    ):
        open_teacher(task, replace(data, classes=tuple("abcdefghij")), compute)
    pad = nn.functional.pad
    wider = {name: replace(each, images=pad(each.images, (0, 1))) for name, each in data.splits.items()}
    data = replace(data, **wider)
    with pytest.raises(ConfigError, match=r"takes images of 1×8×8 .* the data have 1×8×9"):
        open_teacher(task, data, compute)


def test_a_teacher_sees_the_size_that_augmentations_show(
    task_of: Callable[..., Task], tmp_path: Path
) -> None:
    folder = tmp_path / "tests" / "teacher" / "seed-0"
    stages.carry_out(task_of("linear", epochs=1, folder=folder))
    task = task_of("linear", objective=TAUGHT, folder=folder.parents[1] / "student" / "seed-0")
    data = task.data
    assert data is not None

    def opened(size: int) -> nn.Module | None:
        augment = [{"random_resized_crop": {"size": size}}]
        config = replace(task.config, train=replace(task.config.train, augment=augment))
        return open_teacher(replace(task, config=config), data, compute_config(task))

    teacher = opened(8)
    assert teacher is not None
    assert teacher(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"net for images of 8×8, and train.augment shows 6×6"):
        opened(6)


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ({"student": {"train.objective": {"distillation": {"run": "techer"}}}, "teacher": {}}, "'teacher'"),
        (
            {"a": {"train.objective": {"distillation": {"run": "b"}}}, "b": {"estimator": "knn"}},
            "no logits to learn",
        ),
        ({"a": {"train.objective": "distillation"}}, "needs the option 'run'"),
    ],
)
def test_a_run_that_cannot_teach_is_refused(runs: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        study(runs=runs)


def test_two_that_teach_each_other_are_refused(tmp_path: Path) -> None:
    runs = {a: {"train.objective": {"distillation": {"run": b}}} for a, b in (("a", "b"), ("b", "a"))}
    with pytest.raises(ConfigError, match="depend on each other"):
        pipeline.run(study(runs=runs), out=tmp_path)


SWEEP = {"settings": [{"train.lr": 0.01}, {"train.lr": 0.001}]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"runs": {"a": {"train.objective": TAUGHT}, "teacher": {}}, "sweep": SWEEP},
            r"^sweep: a sweep starts before other runs are trained; train the teacher first, and give its "
            r"folder: \{distillation: \{run: \./runs/STUDY/teacher\}\}$",
        ),
        (
            {"runs": {"a": {"model.weights": {"run": "b"}}, "b": {}}, "sweep": SWEEP},
            r"^sweep: .*; train b first, and give its folder or file: weights: \{run: \./runs/STUDY/b\}$",
        ),
        (
            {"runs": {"a": {}}, "sweep": {"space": {"train.objective": ["supervised", TAUGHT]}}},
            r"^sweep\.space\.train\.objective\.1: a sweep starts .*; train the teacher first",
        ),
        (
            {"runs": {"a": {}}, "sweep": {"settings": [{"train.objective": TAUGHT}, {"train.lr": 0.1}]}},
            r"^sweep\.settings\.0\.train\.objective: a sweep starts .*; train the teacher first",
        ),
    ],
)
def test_a_sweep_that_would_wait_for_another_run_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        study(**changes)


def test_a_sweep_learns_from_a_teacher_and_weights_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline.run(study(runs={"teacher": {}}), out=Path("runs"))
    taught = {"distillation": {"run": "./runs/taught/teacher"}}
    runs = {
        "taught": {"train.objective": taught},
        "begun": {"model.weights": {"run": "./runs/taught/teacher/seed-0"}},
    }
    folder = pipeline.run(study(study="swept", runs=runs, sweep=SWEEP), out=Path("runs"))
    for name in runs:
        assert read_json(folder / name / "seed-0" / "record.json")["status"] == "finished"
        assert len(read_json(folder / name / "sweep.json")["trials"]) == 2
    assert len(read_json(folder / "taught" / "sweep.json")["asked"]["teacher"]) == 16


def test_a_sweep_with_a_teacher_that_is_not_there_is_refused(tmp_path: Path) -> None:
    runs = {"a": {"train.objective": {"distillation": {"run": "./none/teacher"}}}}
    with pytest.raises(ConfigError, match=r"teacher: \./none/teacher has no trained model"):
        pipeline.run(study(runs=runs, sweep=SWEEP), out=tmp_path)


def test_weights_and_teacher_that_know_test_images_are_both_told(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "out": tmp_path, "progress": False}
    other = str(sl.train("linear", {"digits": {"seed": 3}}, name="other", **options).folder)
    model, objective = {"linear": {"weights": {"run": other}}}, {"distillation": {"run": other}}
    run = sl.train(model, "digits", name="student", objective=objective, **options)
    found = [each["evidence"] for each in run.record["data"]["findings"] if other in each["evidence"]]
    said = [(evidence.split()[3], "the teacher" in evidence) for evidence in found]
    assert said == [("validation", False), ("test", False), ("validation", True), ("test", True)]


def test_members_of_a_teacher_that_know_test_images_are_told(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "out": tmp_path, "progress": False}
    a, b = (
        sl.train("linear", {"digits": {"seed": 3}}, name=n, seed=k, **options) for k, n in enumerate("ab")
    )
    whole = sl.ensemble([a, b], out=tmp_path / "both", progress=False)
    objective = {"distillation": {"run": str(whole.folder)}}
    run = sl.train("linear", "digits", name="student", objective=objective, **options)
    found = [each for each in run.record["data"]["findings"] if each["audit"] == "trained on before"]
    assert [str(member.folder) in each["evidence"] for member in (a, b) for each in found].count(True) == 4
    assert [each["severity"] for each in found].count("serious") == 2
