"""Runs of models that other software made: they keep a copy of the file, and are evaluated, attacked and
explained like any other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from finished_runs import SMALL
from sklearn.linear_model import LogisticRegression
from torch import nn

import stresslens as sl
from stresslens.config import study_file
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.plugins.datasets.digits import digits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a linear classifier of the digits: of scikit-learn (0 to 16), and of torch.export."""
    folder = tmp_path_factory.mktemp("made")
    train = digits().train
    x = train.images[:].numpy().reshape(len(train), -1).astype(np.float64)
    fitted = LogisticRegression(max_iter=60, tol=1e-2).fit(x, train.labels.numpy())
    joblib.dump(fitted, folder / "fitted.joblib")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(16 * fitted.coef_))
        net[1].bias.copy_(torch.from_numpy(fitted.intercept_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        free = ({0: torch.export.Dim("n")},)
        program = torch.export.export(net, (torch.rand(2, 1, 8, 8),), dynamic_shapes=free)
        torch.export.save(program, folder / "net.pt2")
    return folder


def fitted_model(file: Path) -> dict[str, Any]:
    return {"sklearn": {"file": str(file), "trusted": True, "scale": 16}}


@pytest.mark.slow
def test_a_run_of_a_classifier_of_scikit_learn(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.joblib"
    file.write_bytes((made / "fitted.joblib").read_bytes())
    run = sl.train(fitted_model(file), SMALL, out=tmp_path / "runs")
    file.unlink()
    assert run.scores()["accuracy"].value > 0.85
    folder = Path(run.folder)
    assert [path.name for path in (folder / "model").rglob("*.joblib")] == ["mine.joblib"]
    again = study_file.read_study(folder / "config.yaml")
    assert again.variants[0].config.train.epochs == 0
    with pytest.raises((ConfigError, UnreadableRun), match="joblib and pickle execute what is in the file"):
        sl.load(folder)
    net = sl.load(folder, trust=True)
    x = torch.rand(3, 1, 8, 8)
    expected = joblib.load(made / "fitted.joblib").predict_log_proba(16 * x.flatten(1).numpy())
    assert torch.allclose(net(x), torch.from_numpy(expected).float(), atol=1e-3)

    trusted = sl.open(folder, trust=True)
    with pytest.raises(ConfigError, match=r"the classifier in mine\.joblib has no gradient"):
        sl.attack(trusted, radii=0.3, n_images=5)
    square = {"square": {"queries": 30}}
    broken = sl.attack(trusted, radii=[0.3], protocol=[square], n_images=12, audit=False, progress=False)
    assert broken.table()[-1].accuracy < broken.table()[0].accuracy
    shown = sl.explain(trusted, explainer="occlusion", n_images=2, progress=False)
    assert shown.maps.shape[1:] == (8, 8)
    with pytest.raises(ConfigError, match=r"computed from a file, of which it has a copy; use that"):
        sl.export(trusted, "onnx")


def test_a_program_of_torch_is_attacked_along_its_gradient(made: Path, tmp_path: Path) -> None:
    value = {"torch_export": {"file": str(made / "net.pt2"), "trusted": True}}
    run = sl.open(sl.train(value, SMALL, out=tmp_path).folder, trust=True)
    other = sl.train(fitted_model(made / "fitted.joblib"), SMALL, out=tmp_path)
    assert run.scores()["accuracy"].value == other.scores()["accuracy"].value
    pgd = {"pgd": {"steps": 5}}
    broken = sl.attack(run, radii=[0.3], protocol=[pgd], n_images=12, audit=False, progress=False)
    assert broken.table()[-1].accuracy < 0.3
    assert broken.result.cost.gradients > 0


def test_a_changed_file_is_another_run(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.joblib"
    file.write_bytes((made / "fitted.joblib").read_bytes())
    options = {"out": tmp_path / "runs", "name": "mine"}
    run = sl.train(fitted_model(file), SMALL, **options)
    moved = tmp_path / "elsewhere" / "mine.joblib"
    moved.parent.mkdir()
    file.rename(moved)
    assert sl.train(fitted_model(moved), SMALL, **options).folder == run.folder
    classifier = joblib.load(moved)
    classifier.intercept_ = classifier.intercept_ + 1e-3 * np.arange(10)
    joblib.dump(classifier, moved)
    with pytest.raises(ConfigError, match="holds another configuration"):
        sl.train(fitted_model(moved), SMALL, **options)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"epochs": 2}, r"sklearn is computed as it is and cannot be trained here; leave epochs out"),
        ({"fine_tune": {"layers": "probe"}}, "cannot be trained here; leave fine_tune out"),
    ],
)
def test_training_is_refused(train: dict[str, Any], told: str, made: Path) -> None:
    values = {"data": SMALL, "model": fitted_model(made / "fitted.joblib"), "train": train}
    with pytest.raises(ConfigError, match=told):
        study_file.expand_study(values, name="s", base=Path.cwd())
