"""What is exported answers as the run does, says what it needs to, and is refused where it would not."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from PIL import Image
from small_models import SMALL
from torch import Tensor, nn
from typer.testing import CliRunner

import stresslens as sl
from stresslens import exporting, find, stages
from stresslens.answering import FACTS, LIKENESS, _of_graph, opened
from stresslens.building import Task, open_model
from stresslens.cli import app
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.results import RunFolder, read_json
from stresslens.exporting import export
from stresslens.predicting import Classifier

FORMATS = pytest.mark.parametrize("to", list(exporting.NAMES))
QUICK = {"linear", "simple_cnn"}
SIZES = {"lenet": 16}


@pytest.fixture
def run(task_of: Callable[..., Task]) -> RunFolder:
    task = task_of({"mlp": {"widths": [16]}}, epochs=20, lr=0.01)
    stages.carry_out(task)
    return RunFolder(task.folder)


@pytest.fixture
def pictures(tmp_path: Path, small: Data) -> list[Path]:
    """Nine test images as PNG, and noise of another shape."""
    assert small.test is not None
    files = []
    for k, image in enumerate(small.test.images[:9]):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray((image[0].float() * 255 / 16).round().to(torch.uint8).numpy()).save(files[-1])
    files.append(tmp_path / "noise.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(files[-1])
    return files


def alike(run: Path, exported: Path, files: list[Path], *, trust: bool = True) -> None:
    """Pictures are given the same classes, probabilities and marks by both."""
    first, second = (Classifier(opened(path, trust=trust)) for path in (run, exported))
    n = len(first.likeness.calibration) if first.likeness else 0
    for one, other in zip(first.classify(files, top=10), second.classify(files, top=10), strict=True):
        theirs = dict(other.classes)
        assert other.classes[0][0] == one.classes[0][0]
        assert all(abs(p - theirs[name]) < 1e-4 for name, p in one.classes)
        if one.p_like is None or other.p_like is None:
            assert one.p_like is other.p_like
        else:
            assert abs(one.p_like - other.p_like) <= 4.5 / (n + 1), "a few places among the validation images, where some are near"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in find.names("models")]
)
def test_every_model_in_every_format(name: str, small: Data, pictures: list[Path], tmp_path: Path) -> None:
    size = {"input": {"size": SIZES[name]}} if name in SIZES else {}
    run = sl.train({name: SMALL.get(name, {})}, small, out=tmp_path / "runs", epochs=1, precision="float32", threads=1, **size)
    for to in exporting.NAMES:
        found = sl.export(run, to)
        assert found.file == run.folder / "exports" / exporting.NAMES[to]
        assert found.difference <= 1e-4
        alike(run.folder, found.file, pictures)


@pytest.mark.parametrize(
    "size",
    [24, pytest.param((17, 60), marks=pytest.mark.slow), pytest.param((61, 50), marks=pytest.mark.slow)],
    ids=str,
)
def test_resizing_is_in_the_graph(size: Any, tmp_path: Path) -> None:
    """To fewer and to more pixels, with the antialiasing of torch, on colour images with hard edges."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 40, 33, generator=random).round()
    data = sl.Data.from_arrays(images, torch.arange(60) % 3)
    run = sl.train("simple_cnn", data, out=tmp_path / "runs", epochs=1, precision="float32", threads=1, input={"size": size})
    expected = run.model()(images[:9]).detach()
    session = onnxruntime.InferenceSession(sl.export(run, "onnx").file)
    assert session.get_inputs()[0].shape == ["batch", 3, 40, 33]
    assert torch.allclose(torch.from_numpy(session.run(["logits"], {"images": images[:9].numpy()})[0]), expected, atol=1e-5)
    answers = opened(sl.export(run, "torch").file, trust=True).answer(images[:9])[0]
    assert np.allclose(answers, expected, atol=1e-5)


def test_the_batch_is_open_and_the_facts_are_told(run: RunFolder, tmp_path: Path) -> None:
    found = export(run, "onnx", out=tmp_path / "it.onnx")
    assert (found.images, found.shown, found.opset) == (32, "validation", 18)
    assert found.size == found.file.stat().st_size
    session = onnxruntime.InferenceSession(found.file)
    model, x = open_model(run), torch.rand(33, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for n in (1, 2, 5, 33):
        logits, features = session.run(["logits", "features"], {"images": x[:n].numpy()})
        assert torch.allclose(torch.from_numpy(logits), model(x[:n]), atol=1e-5)
        assert features.shape == (n, 16)
    facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
    record = read_json(run.record)
    assert facts == {
        "format": 1,
        "run": "tests/run/seed-0",
        "fingerprint": record["fingerprint"],
        "version": sl.__version__,
        "shape": [1, 8, 8],
        "classes": [str(k) for k in range(10)],
        "fit": "crop",
        "temperature": record["calibration"]["temperature"],
        "calibrated_on": "validation",
    }
    assert facts["temperature"] != 1


@FORMATS
def test_no_path_of_this_machine_is_in_it(run: RunFolder, to: str) -> None:
    file = export(run, to).file
    if to == "torch":
        with zipfile.ZipFile(file) as archive:
            content = b"".join(map(archive.read, archive.namelist()))
    else:
        content = b"".join(path.read_bytes() for path in ([file] if file.is_file() else sorted(file.iterdir())))
    assert str(Path(exporting.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


@FORMATS
def test_of_a_run_without_validation(to: str, task_of: Callable[..., Task], small: Data, pictures: list[Path]) -> None:
    task = task_of("linear", data=replace(small, validation=None))
    stages.carry_out(task)
    file = export(RunFolder(task.folder), to).file
    alike(task.folder, file, pictures)
    result = CliRunner().invoke(app, ["predict", str(file), str(pictures[0]), "--trust"])
    assert "not calibrated" in result.stdout
    assert "unlike pictures are not told" in result.stdout


def test_typed(run: RunFolder, pictures: list[Path], tmp_path: Path) -> None:
    """The same document by the run and by its exports, and what the verb says."""

    def typed(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    expected = json.loads(typed("predict", str(run.path), *map(str, pictures), "--json"))
    assert any(row["unlike"] for row in expected["pictures"])
    told = typed("export", str(run.path), "--to", "onnx", "--out", str(tmp_path / "folder"))
    assert f"{tmp_path / 'folder' / 'model.onnx'}: 0." in told
    assert "32 validation images in batches of 1, 2, 7 and 22" in told
    document = json.loads(typed("export", str(run.path), "--to", "safetensors", "--out", str(tmp_path / "weights"), "--json"))
    assert document["difference"] <= 1e-5
    for file in ("folder/model.onnx", "weights", "weights/model.safetensors"):
        found = json.loads(typed("predict", str(tmp_path / file), *map(str, pictures), "--json"))
        assert found.keys() == expected.keys()
        assert [row["unlike"] for row in found["pictures"]] == [row["unlike"] for row in expected["pictures"]]
        assert {key: found[key] for key in ("temperature", "calibrated_on", "false_alarm_rate")} == {
            key: expected[key] for key in ("temperature", "calibrated_on", "false_alarm_rate")
        }
    assert typed("predict", str(tmp_path / "weights"), str(pictures[0]), "--csv").startswith("file,class_1")


def test_weights_alone_build_the_model_without_the_run(run: RunFolder, pictures: list[Path], tmp_path: Path) -> None:
    found = export(run, "safetensors", out=tmp_path / "weights")
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = open_model(run)(x)
    assert {path.name for path in found.file.iterdir()} == {"model.safetensors", "model.json", "export.json", "likeness.npz"}
    run.path.rename(tmp_path / "gone")
    assert sl.load(found.file)(x).equal(expected)
    alike(tmp_path / "gone", found.file, pictures, trust=False)
    weights = safetensors.torch.load_file(found.file / "model.safetensors")
    assert set(weights) == set(open_model(RunFolder(tmp_path / "gone")).get_submodule("net").state_dict())


@pytest.mark.parametrize("out", [".", "new", "new/../other"])
def test_a_folder_by_any_name(run: RunFolder, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second export takes the place of the first, and leaves nothing of it."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    first = export(run, "safetensors", out=Path(out)).file
    assert first == Path(out).resolve()
    assert (first / "likeness.npz").is_file()
    run.likeness.unlink()
    assert export(run, "safetensors", out=Path(out)).file == first
    assert {path.name for path in first.iterdir()} == {"model.safetensors", "model.json", "export.json"}
    assert opened(first).likeness is None
    assert not list(tmp_path.rglob(".export-*"))


def test_own_module_and_own_plugin(small: Data, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    trained = sl.train(net, small, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    before = net[1].weight.detach().clone()
    with pytest.raises(ConfigError, match=r"trained on your own module Sequential .*export it from Python: .*module=net"):
        export(RunFolder(trained.folder), "onnx")
    found = sl.export(trained.folder, "onnx", module=net)
    assert found.shown == "random", "the data are the caller's own"
    assert sl.export(trained, "safetensors").difference < 1e-5
    assert net[1].weight.equal(before)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert np.allclose(opened(found.file).answer(x)[0], trained.model()(x).detach(), atol=1e-5)

    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef mine(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    own = sl.train("mine.py:mine", small, out=tmp_path / "runs", name="own", epochs=1, precision="float32", threads=1)
    with pytest.raises(ConfigError, match="--trust"):
        export(RunFolder(own.folder), "onnx")
    alike(own.folder, sl.export(own, "onnx").file, pictures)
    weights = export(RunFolder(own.folder), "safetensors", out=tmp_path / "weights", trust=True).file
    assert [path.parent.name for path in weights.rglob("*.py")] == ["plugins"]
    with pytest.raises(ConfigError, match="--trust"):
        opened(weights)
    alike(own.folder, weights, pictures)


# --- what is refused --------------------------------------------------------------------------------------------------


@FORMATS
def test_what_answers_otherwise_is_not_left(run: RunFolder, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = export(run, to, out=tmp_path / "out" / f"it{Path(exporting.NAMES[to]).suffix}")
    before = {path: path.read_bytes() for path in found.file.parent.rglob("*") if path.is_file()}
    honest = exporting._expected
    monkeypatch.setattr(exporting, "_expected", lambda *given: honest(*given) + torch.tensor([0.0, 0.125] + 8 * [0.0]))
    with pytest.raises(ConfigError, match=r"not written: its logits differ from the run's by 0\.1[23] over 32 validation images"):
        export(run, to, out=found.file)
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


class Counting(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(len(x), 64))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Noisy, "the model is random: logits of the same images differ by"),
        (Choosing, r"(?s)torch\.export cannot follow the model.*decisions by values.*--to safetensors"),
        (Counting, r"(?s)torch\.export cannot follow the model.*x\.shape\[0\] stays open"),
    ],
)
def test_models_that_no_graph_holds(net: type[nn.Module], message: str, small: Data, tmp_path: Path) -> None:
    trained = sl.train(net(), small, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    with pytest.raises(ConfigError, match=message):
        sl.export(trained, "onnx")
    assert not (trained.folder / "exports").exists()


def test_an_estimator(small: Data, tmp_path: Path) -> None:
    trained = sl.train("knn", small, out=tmp_path / "runs", threads=1)
    with pytest.raises(ConfigError, match=r"is the estimator knn, not a network; what it has learned is in .*estimator\.npz"):
        sl.export(trained, "onnx")


@FORMATS
@pytest.mark.parametrize("value", [torch.nan, -torch.inf], ids=str)
def test_weights_that_are_not_finite(run: RunFolder, to: str, value: float) -> None:
    """Also where a ReLU hides it."""
    weights = safetensors.torch.load_file(run.weights)
    weights["1.bias"][0] = value
    safetensors.torch.save_file(weights, run.weights)
    with pytest.raises(ConfigError, match=r"not finite"):
        export(run, to)
    assert not (run.path / "exports").exists()


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("onxx", None, "no format is called 'onxx'; did you mean 'onnx'"),
        ("onnx", "it.pt2", r"a file for onnx ends in \.onnx"),
        ("torch", "it.onnx", r"a file for torch ends in \.pt2"),
        ("safetensors", "it.safetensors", "safetensors is a folder"),
        ("safetensors", "full", "there is something else in this folder"),
        ("onnx", "full/file/it.onnx", "cannot write to .*choose another place"),
    ],
)
def test_places_that_cannot_be_meant(run: RunFolder, to: str, out: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    with pytest.raises(ConfigError, match=message):
        export(run, to, out=None if out is None else tmp_path / out)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra(run: RunFolder, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'stresslens\[onnx\]'"):
        export(run, "onnx")
    if missing == "onnxruntime":
        with pytest.raises(ConfigError, match=r"pip install 'stresslens\[onnx\]'"):
            opened(tmp_path / "any.onnx")


@pytest.fixture
def exported(run: RunFolder) -> Path:
    return export(run, "onnx").file


def relabelled(file: Path, kept: dict[str, str]) -> None:
    """The same graph with other metadata."""
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, file)


def test_damaged_and_foreign_onnx(exported: Path) -> None:
    whole = exported.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no model"):
        exported.write_bytes(content)
        with pytest.raises(ConfigError, match=r"model\.onnx cannot be read as an ONNX model"):
            opened(exported)
    exported.write_bytes(whole)
    kept = {prop.key: prop.value for prop in onnx.load(exported).metadata_props}
    facts = json.loads(kept[FACTS])
    for change, message in (
        ({}, "was not written by `stresslens export`: its metadata has no 'stresslens', which would name the classes"),
        ({FACTS: "{"}, "cannot be read as JSON"),
        ({FACTS: "[]"}, "does not describe a model"),
        ({FACTS: json.dumps(facts | {"temperature": 0})}, "does not describe a model: temperature: Input should be greater than 0"),
        ({FACTS: json.dumps(facts | {"format": 2})}, "does not describe a model: format"),
        ({FACTS: json.dumps(facts | {"classes": ["a", "b"]})}, "do not belong together: logits of shape"),
        ({FACTS: json.dumps(facts | {"shape": [1, 9, 9]})}, "do not belong together"),
        ({FACTS: kept[FACTS], LIKENESS: "§"}, "metadata 'stresslens.likeness' is damaged"),
        ({FACTS: kept[FACTS], LIKENESS: base64.b64encode(b"no archive").decode()}, "cannot be read"),
    ):
        relabelled(exported, change)
        with pytest.raises(ConfigError, match=re.escape(message) if "`" in message else message):
            opened(exported)


def test_a_graph_that_answers_with_nan(run: RunFolder) -> None:
    """To black images it gives numbers, so that it can be opened."""

    def graph(x: Tensor) -> list[np.ndarray]:
        return [np.full((len(x), 10), np.nan if x.any() else 0.0), np.zeros((len(x), 16))]

    answering = _of_graph(Path("it.onnx"), opened(run.path).facts, {}, graph)
    with pytest.raises(DataError, match=r"it\.onnx returns NaN or infinity"):
        answering.answer(torch.ones(1, 1, 8, 8))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_pt2_is_opened_only_with_trust(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts are read without unpickling; torch unpickles the rest, which is why it is asked for."""
    monkeypatch.setenv("BOMB", str(tmp_path / "boom"))
    file = export(run, "torch").file
    with pytest.raises(ConfigError, match=r"(?s)torch unpickles parts .*--trust"):
        opened(file)
    hostile, foreign = tmp_path / "hostile.pt2", tmp_path / "foreign.pt2"
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(hostile, "w") as bad, zipfile.ZipFile(foreign, "w") as other:
        for name in whole.namelist():
            bad.writestr(name, pickle.dumps(Bomb()) if name.endswith(".pt") else whole.read(name))
            if "/extra/" not in name:
                other.writestr(name, whole.read(name))
    with pytest.raises(ConfigError, match="--trust"):
        opened(hostile)
    with pytest.raises(ConfigError, match="was not written by `stresslens export`"):
        opened(foreign, trust=True)
    assert not (tmp_path / "boom").exists()


def test_damaged_pt2(run: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    file = export(run, "torch").file
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"cannot be read as a program of torch\.export"):
            opened(file, trust=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/extra/stresslens", json.dumps(opened(run.path).facts.as_json()))
    with pytest.raises(ConfigError, match=r"cannot be read as a program of torch\.export"):
        opened(file, trust=True)
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_folders_and_other_places(run: RunFolder, tmp_path: Path) -> None:
    folder = export(run, "safetensors", out=tmp_path / "weights").file
    (folder / "likeness.npz").write_bytes(b"")
    assert opened(folder).likeness is None
    (folder / "export.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"export\.json does not describe a model"):
        opened(folder)
    (tmp_path / "other.safetensors").write_bytes(b"")
    for path in ("other.safetensors", "nowhere", "."):
        with pytest.raises(ConfigError, match=r"is not the folder of a run .*not what `stresslens export` writes"):
            opened(tmp_path / path)
    for name in ("none.onnx", "none.pt2"):
        with pytest.raises(ConfigError, match=f"there is no .*{name}"):
            opened(tmp_path / name)
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            opened(tmp_path / name)


BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs" / "export.md").read_text(), re.DOTALL)


def test_the_page_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last three blocks need no stresslens, and give the run's answers."""
    monkeypatch.chdir(tmp_path)
    first, *plain = BLOCKS
    assert len(plain) == 3
    names: dict[str, Any] = {}
    exec(compile(first, "export.md", "exec"), names)
    expected = sl.load(names["run"].folder)(torch.from_numpy(np.random.default_rng(0).random((3, 1, 8, 8), np.float32))).detach()
    names = {}
    for block in plain:
        assert not re.search(r"(import|from) stresslens|sl\.", block)
        exec(compile(block, "export.md", "exec"), names)
        if "logits" in block:
            assert torch.allclose(torch.as_tensor(names["logits"]), expected, atol=1e-5)
    scaled = torch.softmax(expected / names["facts"]["temperature"], 1)
    assert torch.allclose(torch.from_numpy(names["probabilities"]), scaled, atol=1e-5)
    net = find.resolve("models", names["card"]["model"])((1, 8, 8), 10, names["card"]["classes"], None)
    net.load_state_dict(names["weights"])
    assert torch.allclose(net.eval()(names["normalized"]), expected, atol=1e-5)
