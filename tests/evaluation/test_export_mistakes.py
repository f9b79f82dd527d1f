"""What cannot be exported, and files that are none of ours."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import export
from stresslens.evaluation.classify_files import Classifier
from stresslens.evaluation.export import export_run
from stresslens.evaluation.predictor import FACTS, OOD_ARRAYS, _of_graph, open_predictor

FORMATS = pytest.mark.parametrize("to", list(export.NAMES))


@pytest.mark.slow
@FORMATS
def test_what_answers_otherwise_is_not_left(
    run: RunFolder, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = export_run(run, to, out=tmp_path / "out" / f"it{Path(export.NAMES[to]).suffix}")
    before = {path: path.read_bytes() for path in found.file.parent.rglob("*") if path.is_file()}
    honest = export._expected
    monkeypatch.setattr(
        export, "_expected", lambda *given: honest(*given) + torch.tensor([0.0, 0.125] + 8 * [0.0])
    )
    with pytest.raises(
        ConfigError,
        match=r"not written: its logits differ from the run's by 0\.1[23] over "
        r"(32 validation|64 validation and random) images",
    ):
        export_run(run, to, out=found.file)
    assert {path: path.read_bytes() for path in found.file.parent.rglob("*") if path.is_file()} == before


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1) + 0.1 * torch.randn(len(x), 64))


class Choosing(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) if x.sum() > 3 else self.layer(1 - x.flatten(1))


class Branching(Noisy):
    """torch prints its graph before it refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.layer(x.flatten(1))
        return 2 * scores if float(scores.sum()) > 0 else scores


class Counting(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(len(x), 64))


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Noisy, "the model is random: logits of the same images differ by"),
        (
            Choosing,
            r"(?s)torch\.export cannot follow the model.*branches that depend on values.*to='safetensors'",
        ),
        (Branching, r"torch\.export cannot follow the model"),
        (Counting, r"(?s)torch\.export cannot follow the model.*x\.shape\[0\] stays open"),
    ],
)
def test_models_that_no_graph_holds(
    net: type[nn.Module], message: str, small: Data, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = sl.train(net(), small, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    with pytest.raises(ConfigError, match=message):
        sl.export(trained, "onnx")
    assert capfd.readouterr() == ("", "")
    assert not (trained.folder / "exports").exists()


def test_an_estimator(small: Data, tmp_path: Path) -> None:
    trained = sl.train("knn", small, out=tmp_path / "runs", threads=1)
    with pytest.raises(
        ConfigError, match=r"is the estimator knn, not a network; what it has learned is in .*estimator\.npz"
    ):
        sl.export(trained, "onnx")


@pytest.mark.breadth(2)
@FORMATS
@pytest.mark.parametrize("value", [torch.nan, -torch.inf], ids=str)
def test_weights_that_are_not_finite(run: RunFolder, to: str, value: float) -> None:
    """Also where a ReLU hides it."""
    weights = safetensors.torch.load_file(run.weights)
    weights["1.bias"][0] = value
    safetensors.torch.save_file(weights, run.weights)
    write_json(run.record, read_json(run.record) | {"weights_digest": run.weights_digest()})
    with pytest.raises(ConfigError, match=r"not finite"):
        export_run(run, to)
    assert not (run.path / "exports").exists()


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("onxx", None, "no format is called 'onxx'; did you mean 'onnx'"),
        ("onnx", "it.pt2", r"a file for onnx ends in \.onnx"),
        ("torch", "it.onnx", r"a file for torch ends in \.pt2"),
        ("page", "it.htm", r"a file for page ends in \.html"),
        ("safetensors", "it.safetensors", "safetensors is a folder"),
        ("safetensors", "full", "there is something else in this folder"),
        ("onnx", "full/file/it.onnx", "cannot write to .*choose another place"),
    ],
)
def test_places_that_cannot_be_meant(
    run: RunFolder, to: str, out: str | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    with pytest.raises(ConfigError, match=message):
        export_run(run, to, out=None if out is None else tmp_path / out)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra(
    run: RunFolder, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'stresslens\[onnx\]'"):
        export_run(run, "onnx")
    if missing == "onnxruntime":
        with pytest.raises(ConfigError, match=r"pip install 'stresslens\[onnx\]'"):
            open_predictor(tmp_path / "any.onnx")


@pytest.fixture
def exported(run: RunFolder) -> Path:
    return export_run(run, "onnx").file


def relabelled(file: Path, kept: dict[str, str]) -> None:
    """The same graph with other metadata."""
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, file)


@pytest.mark.slow
def test_damaged_and_foreign_onnx(exported: Path) -> None:
    whole = exported.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no model"):
        exported.write_bytes(content)
        with pytest.raises(ConfigError, match=r"model\.onnx cannot be read as an ONNX model"):
            open_predictor(exported)
    exported.write_bytes(whole)
    kept = {prop.key: prop.value for prop in onnx.load(exported).metadata_props}
    facts = json.loads(kept[FACTS])
    for change, message in (
        (
            {},
            (
                "was not written by `stresslens export`: its metadata has no "
                "'stresslens', which would hold the classes"
            ),
        ),
        ({FACTS: "{"}, "cannot be read as JSON"),
        ({FACTS: "[]"}, "does not describe a model"),
        (
            {FACTS: json.dumps(facts | {"temperature": 0})},
            "does not describe a model: temperature: Input should be greater than 0",
        ),
        ({FACTS: json.dumps(facts | {"format": 2})}, "does not describe a model: format"),
        ({FACTS: json.dumps(facts | {"classes": ["a", "b"]})}, "do not belong together: logits of shape"),
        ({FACTS: json.dumps(facts | {"shape": [1, 9, 9]})}, "do not belong together"),
        ({FACTS: kept[FACTS], OOD_ARRAYS: "§"}, "metadata 'stresslens.likeness' is damaged"),
        ({FACTS: kept[FACTS], OOD_ARRAYS: base64.b64encode(b"no archive").decode()}, "cannot be read"),
    ):
        relabelled(exported, change)
        with pytest.raises(ConfigError, match=re.escape(message) if "`" in message else message):
            open_predictor(exported)


def test_a_graph_that_answers_with_nan(run: RunFolder) -> None:
    """To black images it gives numbers, so that it can be opened."""

    def graph(x: Tensor) -> list[np.ndarray]:
        return [np.full((len(x), 10), np.nan if x.any() else 0.0), np.zeros((len(x), 16))]

    answering = _of_graph(Path("it.onnx"), open_predictor(run.path).facts, {}, graph)
    (row,) = Classifier(answering).of_pixels(np.full((1, 1, 8, 8), 255, np.uint8))
    assert row.classes == ()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_pt2_is_opened_only_with_trust(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts are read without unpickling; torch unpickles the rest, which is why it is asked for."""
    monkeypatch.setenv("BOMB", str(tmp_path / "boom"))
    file = export_run(run, "torch").file
    with pytest.raises(ConfigError, match=r"(?s)torch unpickles parts .*--trust"):
        open_predictor(file)
    hostile, foreign = tmp_path / "hostile.pt2", tmp_path / "foreign.pt2"
    with (
        zipfile.ZipFile(file) as whole,
        zipfile.ZipFile(hostile, "w") as bad,
        zipfile.ZipFile(foreign, "w") as other,
    ):
        for name in whole.namelist():
            bad.writestr(name, pickle.dumps(Bomb()) if name.endswith(".pt") else whole.read(name))
            if "/extra/" not in name:
                other.writestr(name, whole.read(name))
    with pytest.raises(ConfigError, match="--trust"):
        open_predictor(hostile)
    with pytest.raises(ConfigError, match="was not written by `stresslens export`"):
        open_predictor(foreign, trust=True)
    assert not (tmp_path / "boom").exists()


def test_damaged_pt2(run: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    file = export_run(run, "torch").file
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"cannot be read as a program of torch\.export"):
            open_predictor(file, trust=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/extra/stresslens", json.dumps(open_predictor(run.path).facts.as_json()))
    with pytest.raises(ConfigError, match=r"cannot be read as a program of torch\.export"):
        open_predictor(file, trust=True)
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_folders_and_other_places(run: RunFolder, tmp_path: Path) -> None:
    folder = export_run(run, "safetensors", out=tmp_path / "weights").file
    (folder / "likeness.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"likeness\.npz cannot be read: .*; export the run again"):
        open_predictor(folder)
    (folder / "likeness.npz").unlink()
    assert open_predictor(folder).ood is None
    (folder / "export.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"export\.json does not describe a model"):
        open_predictor(folder)
    (tmp_path / "other.safetensors").write_bytes(b"")
    for path in ("other.safetensors", "nowhere", "."):
        with pytest.raises(
            ConfigError, match=r"is not the folder of a run .*not what `stresslens export` writes"
        ):
            open_predictor(tmp_path / path)
    for name in ("none.onnx", "none.pt2"):
        with pytest.raises(ConfigError, match=f"there is no .*{name}"):
            open_predictor(tmp_path / name)
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            open_predictor(tmp_path / name)
