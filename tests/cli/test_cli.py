"""Each verb as a user types it, with its exit code."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from several import typed

from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder

Type = Callable[..., tuple[int, str, str]]

STUDY = """\
# stresslens run tiny.yaml
data: {digits: {subset: 100}}
train: {epochs: 2, precision: float32, threads: 1}
runs:
  linear: {model: linear}
  mlp: {model: {mlp: {widths: [8]}}}
repeats: 2
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    return file


def test_run_prints_the_verdict_and_where_the_report_is(type_: Type, tiny: Path, tmp_path: Path) -> None:
    code, out, err = type_("run", "tiny.yaml")
    assert code == 0
    assert "highest mean accuracy" in out
    assert "report: runs/tiny/report.html" in out
    assert "[4/4]" in err
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()
    again, out, err = type_("run", "tiny.yaml", "--json")
    assert again == 0
    assert json.loads(out)["comparison"]["recipes"].keys() == {"linear", "mlp"}
    assert err == ""


def test_gates(type_: Type, tiny: Path) -> None:
    assert type_("run", "tiny.yaml", "--fail-under", "accuracy=0.01", "-q")[0] == 0
    code, _, err = type_("run", "tiny.yaml", "--fail-under", "accuracy=0.999", "-q")
    assert code == 5
    assert "linear/seed-0: accuracy 0." in err
    assert type_("run", "tiny.yaml", "--fail-under", "acuracy=0.9", "-q")[0] == 2
    assert type_("run", "tiny.yaml", "--fail-under", "accuracy", "-q")[0] == 2


def test_dry_run_prints_the_resolved_configuration_and_writes_nothing(
    type_: Type, tiny: Path, tmp_path: Path
) -> None:
    code, out, _ = type_("run", "tiny.yaml", "train.epochs=7", "--dry-run", "--seed", "4", "--device", "cpu")
    assert code == 0
    resolved = json.loads(out)
    assert resolved["seeds"] == [4]
    assert resolved["runs"]["mlp,train.epochs=7"]["train"]["epochs"] == 7
    assert resolved["runs"]["mlp,train.epochs=7"]["train"]["device"] == "cpu"
    assert not (tmp_path / "runs").exists()


def test_train_evaluate_predict_report_list(type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_(
        "train",
        "{digits: {subset: 200}}",
        "{mlp: {widths: [16]}}",
        "train.epochs=20",
        "train.lr=0.01",
        "train.precision=float32",
    )
    assert code == 0
    run = next((tmp_path / "runs" / "train").glob("run*/seed-0"))

    code, out, _ = type_("evaluate", str(run), "--split", "train", "--json")
    assert code == 0
    assert json.loads(out)["scores"]["accuracy"]["n"] == 200
    reads = json.loads((run / "record.json").read_text())["reads_of_test"]
    assert type_("evaluate", str(run))[0] == 0
    assert json.loads((run / "record.json").read_text())["reads_of_test"] == reads + 1
    assert type_("evaluate", str(run), "--fail-under", "accuracy=1.0")[0] == 5

    picture = tmp_path / "seven.png"
    Image.new("RGBA", (40, 60), (0, 0, 0, 255)).save(picture)
    code, out, _ = type_("predict", str(run), str(picture), "--json")
    assert code == 0
    assert json.loads(out)["pictures"][0]["predictions"][0]["probability"] > 0.1
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:50])
    code, out, err = type_("predict", str(run), "broken.png", "seven.png", "none.png")
    assert code == 3
    assert "seven.png" in out
    assert "broken.png: image file is truncated" in err
    assert "none.png: No such file or directory" in err

    code, out, _ = type_("report", str(run))
    assert code == 0
    assert Path(out.strip()).is_file()
    code, out, _ = type_("list", "runs", "--json")
    assert code == 0
    assert str(run.relative_to(tmp_path)) in json.loads(out)


@pytest.mark.slow
def test_train_is_tracked(type_: Type, tmp_path: Path) -> None:
    words = ("train", "{digits: {subset: 100}}", "linear", "train.epochs=1", "train.precision=float32")
    assert type_(*words, "--track", "tensorboard", "--track", "{wandb: {mode: disabled}}")[0] == 0
    run = next((tmp_path / "runs" / "train").glob("run*/seed-0"))
    assert len(list((run / "tensorboard").glob("events.*"))) == 1
    code, _, err = type_(*words, "--track", "tensorbord")
    assert code == 2
    assert "no tracker is called 'tensorbord'; did you mean 'tensorboard'?" in err


@pytest.fixture(scope="module")
def two_jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the tiny study was carried out by two workers, with a tracker that fails."""
    folder = tmp_path_factory.mktemp("two-jobs")
    (folder / "tiny.yaml").write_text(STUDY)
    (folder / "ours.py").write_text("def away(folder):\n    raise OSError('no route to host')\n")
    process = typed(folder, "run", "tiny.yaml", "--jobs", "2", "-q", "track=[ours.py:away]")
    process.join(120)
    assert process.exitcode == 0
    return folder


@pytest.mark.slow
def test_a_tracker_that_fails_is_one_sentence_a_run(two_jobs: Path) -> None:
    assert sorted((two_jobs / "err").read_text().splitlines()) == [
        f"stresslens: runs/tiny/{run}/seed-{seed}: the tracker ours.py:away is left out and the run "
        "continues (OSError: no route to host). When this is fixed, run the same command again: "
        "it sends everything to the tracker"
        for run in ("linear", "mlp")
        for seed in (0, 1)
    ]


def test_list_shows_every_plugin_with_its_options(type_: Type) -> None:
    code, out, _ = type_("list", "--json")
    found = json.loads(out)
    assert code == 0
    assert "widths" in found["models"]["mlp"]["options"]
    assert {"digits", "mnist", "cifar10"} <= set(found["datasets"])
    assert type_("list", "losses")[0] == 0
    code, _, err = type_("list", "model")
    assert code == 2
    assert "did you mean 'models'?" in err


def test_doctor(type_: Type) -> None:
    code, out, _ = type_("doctor", "--json")
    assert code == 0
    assert json.loads(out)["torchvision imports"] is True


@pytest.mark.slow
def test_config_of_a_run_repeats_it(type_: Type, tiny: Path, tmp_path: Path) -> None:
    assert type_("run", "tiny.yaml", "-q")[0] == 0
    first = tmp_path / "runs" / "tiny" / "mlp" / "seed-1"
    assert type_("run", str(first / "config.yaml"), "--out", "again", "-q")[0] == 0
    second = tmp_path / "again" / "tiny" / "mlp" / "seed-1"
    for name in ("metrics.jsonl", "model.safetensors", "config.yaml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_own_plugin_is_copied_and_needs_trust_to_open(type_: Type, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef narrow(shape, classes, *, width: int = 3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    (tmp_path / "own.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: {'mine.py:narrow': {width: 5}}\n"
        "train: {epochs: 1, precision: float32}\n"
    )
    assert type_("run", "own.yaml", "-q")[0] == 0
    run = tmp_path / "runs" / "own" / "run" / "seed-0"
    assert len(list((run / "plugins").glob("mine-*.py"))) == 1
    (tmp_path / "mine.py").rename(tmp_path / "elsewhere.py")
    code, _, err = type_("evaluate", str(run))
    assert code == 2
    assert "--trust" in err
    assert type_("evaluate", str(run), "--trust")[0] == 0
    assert type_("run", str(run / "config.yaml"), "--out", "again", "-q")[0] == 0


@pytest.mark.slow
def test_jobs_give_the_same_bits(type_: Type, tiny: Path, tmp_path: Path, two_jobs: Path) -> None:
    assert type_("run", "tiny.yaml", "-q")[0] == 0
    files = sorted((tmp_path / "runs").rglob("model.safetensors"))
    assert len(files) == 4
    for weights in files:
        assert weights.read_bytes() == (two_jobs / weights.relative_to(tmp_path)).read_bytes()


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("number", "jobs"),
    [
        *((signal.SIGTERM, "1"), (signal.SIGINT, "1")),
        *(pytest.param(number, "2", marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_signals_save_and_tell(tmp_path: Path, number: signal.Signals, jobs: str) -> None:
    """As a terminal sends Ctrl-C: to the command and its workers alike. Runs that wait for a worker
    are not begun any more."""
    (tmp_path / "long.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\n"
        "train: {epochs: 1000000, precision: float32, threads: 1}\nrepeats: 5\n"
    )
    process = typed(tmp_path, "run", "long.yaml", "--jobs", jobs)
    metrics = tmp_path / "runs" / "long" / "run" / "seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while (
        not (metrics.exists() and metrics.stat().st_size > 1000)
        and process.is_alive()
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(process.pid or 0, number)
    process.join(60)
    err = (tmp_path / "err").read_text()
    assert process.exitcode == 128 + number, err
    begun = {
        path.parent.name: json.loads(path.read_text())["status"]
        for path in metrics.parents[1].rglob("record.json")
    }
    assert set(begun.values()) <= {"stopped", "running"}  # running: killed before its first epoch
    assert len(begun) <= int(jobs)
    assert "Traceback" not in err
    assert number.name in err
    assert (metrics.parent / "checkpoint.pt").is_file()
    assert json.loads((metrics.parent / "record.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\n"
        "train: {epochs: 1000000, precision: float32, threads: 1}\nrepeats: 2\n"
    )
    process = typed(tmp_path, "run", "long.yaml", "--jobs", "2")
    run = tmp_path / "runs" / "long" / "run" / "seed-0"
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    for _ in range(200):
        try:
            with RunFolder(run).locked():
                return
        except ConfigError:
            time.sleep(0.05)
    pytest.fail("the worker outlived the command by ten seconds and still holds the folder")


@pytest.mark.slow
def test_a_run_that_was_finished_before_says_so(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\ntrain: {epochs: 1, precision: float32, threads: 1}\n"
        "repeats: 2\n"
    )

    def lines(*words: str) -> list[str]:
        code, _, err = type_("run", "s.yaml", *words)
        assert code == 0
        return [line for line in err.splitlines() if line.startswith("[")]

    assert [" test images, 1 epoch in " in line for line in lines()] == [True, True]
    assert [" test images, finished before, 1 epoch in " in line for line in lines()] == [True, True]
    assert [" test images, 2 epochs in " in line for line in lines("train.epochs=2")] == [True, True]
    added = lines("train.epochs=2", "repeats=3")
    assert ["finished before" in line for line in added] == [True, True, False]


@pytest.mark.slow
def test_a_sweep_from_the_command_line(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\ntrain: {epochs: 2, precision: float32, threads: 1}\n"
        "sweep: {trials: 2, space: {train.lr: {from: 1e-3, to: 0.1, log: true}}}\n"
    )
    code, out, _ = type_("run", "s.yaml", "--dry-run")
    assert code == 0
    assert json.loads(out)["sweep"]["space"]["train.lr"] == {"from": 1e-3, "to": 0.1, "log": True}
    assert json.loads(out)["sweep"]["trials"] == 2
    assert not (tmp_path / "runs").exists()
    assert type_("run", "s.yaml", "--executor", "rai")[0] == 2
    code, _, err = type_("run", "s.yaml")
    assert code == 0
    assert "run: trial 1 (2 of 2 ended): accuracy on validation " in err
    assert "[1/1] run seed 0: " in err
    trial = str(tmp_path / "runs" / "s" / "run" / "trials" / "000")
    assert type_("evaluate", trial, "--split", "validation")[0] == 0
    code, _, err = type_("evaluate", trial)
    assert code == 2
    assert "has no test split here; it has train, validation" in err


def test_usage_mistakes_exit_2(type_: Type, tiny: Path) -> None:
    for words in (
        ["run"],
        ["run", "none.yaml"],
        ["rum"],
        ["run", "tiny.yaml", "--jobs", "0"],
        ["run", "tiny.yaml", "--device", "cuda:7"],
    ):
        code, _, err = type_(*words)
        assert code == 2, (words, err)
        assert "Traceback" not in err


def test_evaluate_refuses_other_data(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\n\nimport numpy as np\nfrom stresslens import Data\n\n\ndef mine():\n"
        "    n = int(Path('size.txt').read_text())\n"
        "    return Data.from_arrays(np.arange(n * 64, dtype=np.uint8).reshape(n, 8, 8), np.arange(n) % 2)\n"
    )
    (tmp_path / "size.txt").write_text("100")
    (tmp_path / "own.yaml").write_text(
        "data: own.py:mine\nmodel: linear\ntrain: {epochs: 1, precision: float32}\n"
    )
    assert type_("run", "own.yaml", "-q")[0] == 0
    run = tmp_path / "runs" / "own" / "run" / "seed-0"
    before = (run / "record.json").read_bytes()
    (tmp_path / "size.txt").write_text("140")
    code, _, err = type_("evaluate", str(run), "--trust")
    assert code == 2
    assert "the data set has changed" in err
    assert (run / "record.json").read_bytes() == before


@pytest.mark.slow
def test_one_run_of_a_study_again_leaves_the_study_whole(type_: Type, tiny: Path, tmp_path: Path) -> None:
    assert type_("run", "tiny.yaml", "-q")[0] == 0
    before = json.loads((tmp_path / "runs" / "tiny" / "comparison.json").read_text())
    assert type_("run", "runs/tiny/mlp/seed-1/config.yaml", "-q")[0] == 0
    assert type_("run", "tiny.yaml", "-q", "--seed", "0")[0] == 0
    assert json.loads((tmp_path / "runs" / "tiny" / "comparison.json").read_text()) == before


@pytest.mark.slow
def test_list_and_evaluate_survive_damaged_records(type_: Type, tiny: Path, tmp_path: Path) -> None:
    assert type_("run", "tiny.yaml", "-q")[0] == 0
    for seed, text in enumerate(("[]", "{")):
        (tmp_path / "runs" / "tiny" / "mlp" / f"seed-{seed}" / "record.json").write_text(text)
        assert type_("evaluate", f"runs/tiny/mlp/seed-{seed}")[0] == 2
    code, out, _ = type_("list", "runs", "--json")
    assert code == 0
    assert sorted(record["status"] for record in json.loads(out).values()) == [
        "finished",
        "finished",
        "unreadable",
        "unreadable",
    ]


def test_batch_norm_and_a_last_batch_of_one_image(type_: Type) -> None:
    code, _, err = type_(
        "train",
        "{digits: {subset: 97}}",
        "{simple_cnn: {batch_norm: true}}",
        "train.batch_size=16",
        "train.epochs=1",
    )
    assert code == 2
    assert "set train.batch_size to 17" in err


def test_a_signal_is_never_taken_for_an_error(tmp_path: Path) -> None:
    from stresslens.core.errors import Stopped, StresslensError

    assert not issubclass(Stopped, Exception)
    assert not issubclass(Stopped, StresslensError)


def test_overrides_that_mean_nothing_to_an_estimator_are_refused(type_: Type) -> None:
    code, _, err = type_("train", "digits", "knn", "train.epochs=3")
    assert code == 2
    assert "train.epochs=3: means nothing to the estimator knn" in err
