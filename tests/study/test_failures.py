"""A study of which parts fail: what is refused before training, what is missing afterwards and why, and
what the same command does again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresslens.config import study_file
from stresslens.core.attempts import Attempts
from stresslens.core.errors import ConfigError, DataError, StresslensError, TrainingDiverged
from stresslens.core.files import read_json
from stresslens.evaluation.record import Failure
from stresslens.study import pipeline
from stresslens.study.failures import error_of, failure_of

BASE = {
    "data": {"digits": {"subset": 100}},
    "model": "linear",
    "train": {"epochs": 1, "precision": "float32", "threads": 1, "memory_format": "contiguous"},
}
OWN = "def fails(model, x, y):\n    raise ValueError('no\\x1b such thing')\n"


def carried(tmp_path: Path, jobs: int | None = None, **changes: Any) -> pipeline.CarriedStudy:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(BASE | changes))
    return pipeline.carry_out_study(
        study_file.read_study(file),
        out=tmp_path / "runs",
        jobs=jobs,
        show=lambda task: lambda position, epochs, done: None,
        tell=lambda task, record: None,
        say=lambda line: None,
    )


def record(tmp_path: Path, run: str = "run") -> dict[str, Any]:
    read: dict[str, Any] = read_json(tmp_path / "runs" / "s" / run / "seed-0" / "record.json")
    return read


PARTS: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "an explainer": ({"explain": {"explainers": ["rollout", "saliency"], "images": 2}}, "explain", "rollout"),
    "a view": ({"views": ["filters", "impostor"]}, "views", "filters: the model has no convolution"),
    "a view without attacks": ({"views": ["adversarial_examples"]}, "views", "no adversarial images"),
    "a certificate": (
        {
            "robustness": {
                "radii": 0.1,
                "protocol": ["fgsm"],
                "images": 4,
                "audit": False,
                "certificates": ["interval"],
            },
            "model": "vit",
        },
        "robustness",
        "interval bounds do not support the layer",
    ),
    "an own explainer": (
        {"explain": ["own.py:fails"]},
        "explain",
        "ValueError: no\ufffd such thing (own.py:2)",
    ),
}


FAST = ("a view", "an own explainer")


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "part", [part if part in FAST else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]
)
def test_an_evaluation_that_fails_is_missing_alone(tmp_path: Path, part: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    changes, stage, message = PARTS[part]
    study = carried(
        tmp_path, runs={"bad": changes, "good": {}}, contrasts={"two": {"pairs": [["bad", "good"]]}}
    )
    ((place, failure),) = study.failures.items()
    assert place.endswith(f"bad/seed-0: {stage}")
    assert message in failure.message
    kept = record(tmp_path, "bad")
    assert kept["status"] == "incomplete"
    assert kept["failures"][stage]["message"] == failure.message
    assert record(tmp_path, "good")["status"] == "finished"
    assert "failures" not in record(tmp_path, "good")
    page = (study.folder / "report.html").read_text()
    assert "Parts that are missing" in page
    assert read_json(study.folder / "comparison.json")["contrasts"]  # its predictions count
    log = study.folder / "bad" / "seed-0" / "errors.log"
    assert log.is_file() == (part == "an own explainer")


@pytest.mark.slow
def test_the_other_explainers_and_certificates_of_a_stage_are_computed_and_counted(tmp_path: Path) -> None:
    study = carried(tmp_path, explain={"explainers": ["rollout", "saliency"], "images": 2})
    assert list(study.folder.glob("run/seed-0/explanations/saliency-*/result.json"))
    assert record(tmp_path)["reads_of_test"] == 2  # predictions and one explainer


def test_the_same_command_does_only_what_is_missing(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    study = carried(tmp_path, explain={"explainers": ["own.py:fails"], "images": 2})
    weights = study.folder / "run" / "seed-0" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    own.write_text(
        "from stresslens.plugins import Maps\n\n\ndef fails(model, x, y):\n"
        "    return Maps(x.mean(1), signed=False, unit='brightness')\n"
    )
    study = carried(tmp_path, explain={"explainers": ["own.py:fails"], "images": 2})
    assert not study.failures
    assert weights.stat().st_mtime_ns == written
    assert record(tmp_path)["status"] == "finished"
    assert "failures" not in record(tmp_path)
    assert not weights.with_name("errors.log").exists()


def test_runs_without_their_weights_are_missing_and_the_others_go_on(tmp_path: Path) -> None:
    nowhere = {"linear": {"weights": {"file": str(tmp_path / "nowhere.safetensors")}}}
    study = carried(
        tmp_path,
        runs={
            "scratch": {},
            "file": {"model": nowhere},
            "folder": {"model": {"linear": {"weights": {"run": str(tmp_path / "no" / "run")}}}},
            "wild": {"train.lr": 1e38, "train.optimizer": "sgd", "train.epochs": 2},
            "child": {"model": {"linear": {"weights": {"run": "wild"}}}},
        },
        contrasts={"start": {"pairs": [["scratch", "file"]]}},
    )
    assert [Path(place).parent.name for place in study.failures] == ["file", "folder", "wild", "child"]
    assert record(tmp_path, "scratch")["status"] == "finished"
    assert "nowhere.safetensors cannot be read" in record(tmp_path, "file")["message"]
    assert record(tmp_path, "wild")["status"] == "diverged"
    assert "its weights" in record(tmp_path, "child")["message"]
    verdicts = read_json(study.folder / "comparison.json")["verdicts"]
    assert "scratch and file were not compared: file is missing, without a finished run" in verdicts
    with pytest.raises(StresslensError) as caught:
        study.raise_failed()
    assert caught.value.exit_code == 1  # of several kinds


def test_only_runs_without_their_weights_are_refused(tmp_path: Path) -> None:
    nowhere = {"linear": {"weights": {"file": str(tmp_path / "nowhere.safetensors")}}}
    with pytest.raises(ConfigError, match="cannot be read"):
        carried(tmp_path, model=nowhere)
    assert not list(tmp_path.rglob("record.json"))


def test_a_reason_that_several_runs_share_is_said_once(tmp_path: Path) -> None:
    one, other = ({"linear": {"weights": {"file": str(tmp_path / name)}}} for name in ("one", "other"))
    with pytest.raises(ConfigError) as caught:
        carried(tmp_path, runs={"a": {"model": one}, "b": {"model": other}, "c": {"model": one}})
    first, second = sorted(str(caught.value).splitlines(), key=lambda line: "other" in line)
    assert first.count("cannot be read") == second.count("cannot be read") == 1
    assert "runs.a, " in first
    assert "runs.c" in first
    assert "runs.b" in second


def test_what_no_training_can_do_is_refused_at_once_with_lines_and_names(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def net(shape, classes):\n    return 1 / 0\n")
    runs = {"good": {}, "small": {"model": "lenet"}, "mine": {"model": "own.py:net"}}
    schedule = {"warmup": {"then": "one_cycle"}}
    with pytest.raises(StresslensError) as caught:
        carried(tmp_path, runs=runs | {"rising": {"train.schedule": schedule}})
    mine, rising, small = sorted(str(caught.value).splitlines(), key=lambda line: line.split("runs.")[1])
    assert "s.yaml:" in mine
    assert "runs.mine: ZeroDivisionError" in mine
    assert "(own.py:2)" in mine
    assert "runs.rising: warmup" in rising
    assert "runs.small: " in small
    assert "lenet needs at least 12×12 pixels" in small
    assert not list(tmp_path.rglob("record.json"))


def test_an_own_loss_that_raises_fails_the_training_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def loss(logits, y):\n    raise KeyError('mine')\n")
    study = carried(tmp_path, runs={"bad": {"train.loss": "own.py:loss"}, "good": {}})
    assert [Path(place).parent.name for place in study.failures] == ["bad"]
    assert record(tmp_path, "bad")["status"] == "failed"
    assert "KeyError: 'mine' (own.py:2)" in record(tmp_path, "bad")["message"]


@pytest.mark.slow
def test_workers_report_failures_as_this_process_does(tmp_path: Path) -> None:
    runs = {"wild": {"train.lr": 1e38, "train.optimizer": "sgd", "train.epochs": 2}, "good": {}, "more": {}}
    study = carried(tmp_path, jobs=2, runs=runs, views=["filters"])
    stages = sorted("/".join(place.split("/")[-2:]) for place in study.failures)
    assert stages == ["good/seed-0: views", "more/seed-0: views", "wild/seed-0"]


def test_failures_of_one_kind_are_raised_as_it(tmp_path: Path) -> None:
    diverged = failure_of(TrainingDiverged("nan", [3]), tmp_path, "training")
    wrong, absent = (failure_of(kind("no"), tmp_path, "training") for kind in (ConfigError, DataError))
    error = error_of({"a": diverged, "b": diverged})
    assert isinstance(error, TrainingDiverged)
    assert error.images == [3]
    assert str(error) == "a: nan\nb: nan"
    assert type(error_of({"a": wrong})) is ConfigError
    assert type(error_of({"": absent})) is DataError
    assert type(error_of({"a": wrong, "b": absent})) is StresslensError
    assert not (tmp_path / "errors.log").exists()
    assert Failure(message="x").exit_code == 1


def test_parts_after_one_that_fails_are_tried() -> None:
    attempts, done = Attempts(), []
    for name, error in (("a", ConfigError("no")), ("b", None), ("c", ConfigError("c: neither"))):
        with attempts.part(name):
            if error is not None:
                raise error
            done.append(name)
    assert done == ["b"]
    with pytest.raises(ConfigError, match=r"^a: no\nc: neither$"):
        attempts.raise_failed()
    Attempts().raise_failed()
