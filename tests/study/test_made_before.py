"""What version 0.1.0 wrote, before its modules moved, is opened and read by today's code:
`tests/made_before` holds a study with one run, attacked, explained and viewed, and an attack on a
net that a script defined."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app

pytestmark = pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")

HERE = Path(__file__).parents[1] / "made_before"


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run's folder, with the study file where it was."""
    shutil.copytree(HERE / "study", tmp_path / "runs" / "before")
    shutil.copy(HERE / "before.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "before" / "run" / "seed-0"


def contents(folder: Path) -> dict[str, bytes]:
    kept = (
        "*.npz",
        "model.*",
        "metrics.jsonl",
        "record.json",
        "robustness/*/result.json",
        "explanations/*/*",
        "views/*/*.json",
    )
    return {
        str(file.relative_to(folder)): file.read_bytes() for pattern in kept for file in folder.rglob(pattern)
    }


def test_the_study_is_finished_and_nothing_is_done_again(before: Path) -> None:
    held = contents(before)
    sl.run("before.yaml")
    assert contents(before) == held
    assert (before / "report.html").is_file()


def test_its_attack_is_read_and_not_made_anew(before: Path) -> None:
    held = contents(before)
    given = [
        "--radii",
        "0.4",
        "--protocol",
        "[fgsm]",
        "--alone",
        "fgsm",
        "--passes",
        "1",
        "--images",
        "40",
        "--json",
    ]
    done = CliRunner().invoke(app, ["attack", str(before), *given], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert [path.name for path in (before / "robustness").iterdir()] == [told["key"]]
    assert contents(before) == held
    assert told["curve"][0]["robust"]["n"] == 40


def test_it_is_evaluated_explained_and_exported(before: Path) -> None:
    invoke = CliRunner().invoke
    kept = np.load(before / "predictions" / "test.npz")
    probabilities = sl.predict(sl.load(before), np.zeros((2, 1, 8, 8), np.float32))
    assert probabilities.shape == (2, kept["scores"].shape[1])
    explain = [
        "explain",
        str(before),
        "--explainer",
        "saliency",
        "--choose",
        "surest_wrong",
        "--images",
        "2",
        "--answer",
        "label",
    ]
    invoke(app, explain, catch_exceptions=False)
    assert len(list((before / "explanations").iterdir())) == 1
    invoke(app, ["evaluate", str(before), "--split", "validation"], catch_exceptions=False)
    invoke(app, ["report", str(before.parents[1])], catch_exceptions=False)
    assert sl.export(before, "safetensors", out="exported").file.is_dir()
    assert "saliency" in (before / "report.html").read_text()


def test_training_it_for_its_epochs_again_changes_nothing(before: Path) -> None:
    """Taken back to its checkpoint, the run ends at the same record of its training."""
    weights = (before / "model.safetensors").read_bytes()
    record = json.loads((before / "record.json").read_text())
    record["stages"] = {}
    (before / "record.json").write_text(json.dumps(record))
    sl.run("before.yaml")
    assert (before / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("home", ["own_nets", "__main__"])
def test_the_attack_on_a_scripts_net_is_read_from_any_module(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script was run as `__main__`; the class has the same name and weights wherever it is
    imported from."""
    shutil.copytree(HERE / "own", tmp_path / "own")
    spec = importlib.util.spec_from_file_location("own_nets", HERE / "own.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_nets", module)
    spec.loader.exec_module(module)
    module.Net.__module__ = home
    torch.manual_seed(0)
    x, net = torch.rand(6, 1, 2, 2), module.Net()
    y = net(x).argmax(1)
    options = {"radii": [0.1], "protocol": ["fgsm"], "alone": ["fgsm"], "passes": 1}
    held = contents(tmp_path / "own")
    found = sl.attack(net, x, y, out=tmp_path / "own", **options)
    assert contents(tmp_path / "own") == held
    assert found.facts["n"] == 6
    with torch.no_grad():
        net.layer.bias += 1.0
    with pytest.raises(sl.ConfigError, match="holds the result of another model"):
        sl.attack(net, x, y, out=tmp_path / "own", **options)
