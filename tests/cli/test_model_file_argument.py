"""`stresslens evaluate FILE --data DATA`: a model file of other software becomes a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
from sklearn.naive_bayes import GaussianNB

from stresslens.plugins.datasets.digits import digits

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    train = digits().train
    x = train.images[:].numpy().reshape(len(train), -1) / 16
    joblib.dump(GaussianNB(var_smoothing=0.1).fit(x, train.labels.numpy()), tmp_path / "fitted.joblib")
    return tmp_path / "fitted.joblib"


def test_a_file_becomes_a_run(fitted: Path, tmp_path: Path, type_: Type) -> None:
    words = ("evaluate", str(fitted), "--data", "digits", "--trust", "--out", str(tmp_path / "out"), "--json")
    code, out, err = type_(*words)
    assert code == 0, err
    accuracy = json.loads(out)["scores"]["accuracy"]
    assert accuracy["value"] > 0.8
    assert accuracy["n"] == 360
    (record,) = (tmp_path / "out" / "evaluate").rglob("record.json")
    assert str(record.parent) in err
    assert json.loads(record.read_text())["reads_of_test"] == 1
    code, again, _ = type_(*words)
    assert json.loads(again)["scores"] == json.loads(out)["scores"]
    assert json.loads(record.read_text())["reads_of_test"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "is a model; say on which images: --data digits"),
        (("--data", "digits"), "joblib and pickle execute what is in the file"),
        (("--data", "digits", "--trust", "--set", "16"), "--set 16: expected KEY=VALUE, as scale=255"),
        (("--data", "digits", "--trust", "--set", "scal=16"), "has no option 'scal'; did you mean 'scale'"),
        (("--data", "digits", "--trust", "--tta", "flip"), "--tta: evaluate the model file first"),
        (("--data", "no-such-data", "--trust"), "no-such-data"),
    ],
)
def test_what_is_missing_or_wrong(words: tuple[str, ...], told: str, fitted: Path, type_: Type) -> None:
    code, _, err = type_("evaluate", str(fitted), *words, "--out", str(fitted.parent / "out"))
    assert code == 2
    assert told in err


def test_set_is_for_model_files(tmp_path: Path, type_: Type) -> None:
    (tmp_path / "p.csv").write_text("label,prediction\na,a\nb,a\n")
    code, _, err = type_("evaluate", str(tmp_path / "p.csv"), "--set", "scale=2", "--out", str(tmp_path))
    assert code == 2
    assert "--set is for model files; leave it out" in err
