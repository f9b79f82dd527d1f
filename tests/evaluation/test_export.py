"""What is exported answers as the run does, says what it needs to."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from small_models import BUILT, SMALL
from torch import nn
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.classify_files import Classifier
from stresslens.evaluation.export import NAMES, export_run
from stresslens.evaluation.predictor import FACTS, open_predictor
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.training.task import Task

OPENED = [to for to in NAMES if to != "page"]
"""What `stresslens predict` opens; a page has its tests in test_page_export.py."""
FORMATS = pytest.mark.parametrize("to", OPENED)
QUICK = {"linear"}
SIZES = {"lenet": 16}


def alike(run: Path, exported: Path, files: list[Path], *, trust: bool = True) -> None:
    """Pictures are given the same classes, probabilities and marks by both."""
    first, second = (Classifier(open_predictor(path, trust=trust)) for path in (run, exported))
    n = len(first.ood.calibration) if first.ood else 0
    for one, other in zip(first.classify(files, top=10), second.classify(files, top=10), strict=True):
        theirs = dict(other.classes)
        assert other.classes[0][0] == one.classes[0][0]
        assert all(abs(p - theirs[name]) < 1e-4 for name, p in one.classes)
        if one.ood_p_value is None or other.ood_p_value is None:
            assert one.ood_p_value is other.ood_p_value
        else:
            assert abs(one.ood_p_value - other.ood_p_value) <= 4.5 / (n + 1), (
                "a few places among the validation images, where some are near"
            )


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BUILT],
)
def test_every_model_in_every_format(name: str, small: Data, pictures: list[Path], tmp_path: Path) -> None:
    size = {"input": {"size": SIZES[name]}} if name in SIZES else {}
    run = sl.train(
        {name: SMALL.get(name, {})},
        small,
        out=tmp_path / "runs",
        epochs=1,
        precision="float32",
        threads=1,
        **size,
    )
    for to in OPENED:
        found = sl.export(run, to)
        assert found.file == run.folder / "exports" / NAMES[to]
        assert found.difference <= 1e-4
        alike(run.folder, found.file, pictures)


@pytest.mark.slow
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
    run = sl.train(
        "simple_cnn",
        data,
        out=tmp_path / "runs",
        epochs=1,
        precision="float32",
        threads=1,
        input={"size": size},
    )
    expected = run.model()(images[:9]).detach()
    session = onnxruntime.InferenceSession(sl.export(run, "onnx").file)
    assert session.get_inputs()[0].shape == ["batch", 3, 40, 33]
    assert torch.allclose(
        torch.from_numpy(session.run(["logits"], {"images": images[:9].numpy()})[0]), expected, atol=1e-5
    )
    answers = open_predictor(sl.export(run, "torch").file, trust=True).answer(images[:9])[0]
    assert np.allclose(answers, expected, atol=1e-5)


def test_the_batch_is_open_and_the_facts_are_told(run: RunFolder, tmp_path: Path) -> None:
    found = export_run(run, "onnx", out=tmp_path / "it.onnx")
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


@pytest.mark.breadth(1)
@pytest.mark.parametrize("to", list(NAMES))
def test_no_path_of_this_machine_is_in_it(run: RunFolder, to: str) -> None:
    file = export_run(run, to).file
    if to == "torch":
        with zipfile.ZipFile(file) as archive:
            content = b"".join(map(archive.read, archive.namelist()))
    else:
        content = b"".join(
            path.read_bytes() for path in ([file] if file.is_file() else sorted(file.iterdir()))
        )
    assert str(Path(sl.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


@pytest.mark.breadth(1)
@FORMATS
def test_of_a_run_without_validation(
    to: str, task_of: Callable[..., Task], small: Data, pictures: list[Path]
) -> None:
    task = task_of("linear", data=replace(small, validation=None))
    stages.carry_out(task)
    file = export_run(RunFolder(task.folder), to).file
    alike(task.folder, file, pictures)
    result = CliRunner().invoke(app, ["predict", str(file), str(pictures[0]), "--trust"])
    assert "not calibrated" in result.stdout
    assert "out-of-distribution images are not marked" in result.stdout


@pytest.mark.slow
def test_typed(run: RunFolder, pictures: list[Path], tmp_path: Path) -> None:
    """The same document by the run and by its exports, and what the verb says."""

    def typed(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    expected = json.loads(typed("predict", str(run.path), *map(str, pictures), "--json"))
    assert any(row["out_of_distribution"] for row in expected["pictures"])
    told = typed("export", str(run.path), "--to", "onnx", "--out", str(tmp_path / "folder"))
    assert f"{tmp_path / 'folder' / 'model.onnx'}: 0." in told
    assert "32 validation images in batches of 1, 2, 7 and 22" in told
    document = json.loads(
        typed("export", str(run.path), "--to", "safetensors", "--out", str(tmp_path / "weights"), "--json")
    )
    assert document["difference"] <= 1e-5
    for file in ("folder/model.onnx", "weights", "weights/model.safetensors"):
        found = json.loads(typed("predict", str(tmp_path / file), *map(str, pictures), "--json"))
        assert found.keys() == expected.keys()
        for key in ("out_of_distribution", "unlike"):
            assert [row[key] for row in found["pictures"]] == [row[key] for row in expected["pictures"]]
        assert {key: found[key] for key in ("temperature", "calibrated_on", "false_alarm_rate")} == {
            key: expected[key] for key in ("temperature", "calibrated_on", "false_alarm_rate")
        }
    assert typed("predict", str(tmp_path / "weights"), str(pictures[0]), "--csv").startswith("file,class_1")


def test_weights_alone_build_the_model_without_the_run(
    run: RunFolder, pictures: list[Path], tmp_path: Path
) -> None:
    found = export_run(run, "safetensors", out=tmp_path / "weights")
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = open_model(run)(x)
    assert {path.name for path in found.file.iterdir()} == {
        "model.safetensors",
        "model.json",
        "export.json",
        "calibration.npz",
        "likeness.npz",
    }
    run.path.rename(tmp_path / "gone")
    assert sl.load(found.file)(x).equal(expected)
    alike(tmp_path / "gone", found.file, pictures, trust=False)
    weights = safetensors.torch.load_file(found.file / "model.safetensors")
    assert set(weights) == set(open_model(RunFolder(tmp_path / "gone")).get_submodule("net").state_dict())


@pytest.mark.breadth(1)
@pytest.mark.parametrize("out", [".", "new", "new/../other"])
def test_a_folder_by_any_name(
    run: RunFolder, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second export takes the place of the first, and leaves nothing of it."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    first = export_run(run, "safetensors", out=Path(out)).file
    assert first == Path(out).resolve()
    assert (first / "likeness.npz").is_file()
    assert (first / "calibration.npz").is_file()
    run.likeness.unlink()
    run.predictions("validation").unlink()
    assert export_run(run, "safetensors", out=Path(out)).file == first
    assert {path.name for path in first.iterdir()} == {"model.safetensors", "model.json", "export.json"}
    assert open_predictor(first).ood is None
    assert not list(tmp_path.rglob(".*.partial"))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("kept", range(7))
def test_an_export_goes_on_where_a_kill_left_it(
    kept: int, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes after `kept` files were moved over an older export; the user's own files stay."""
    out = tmp_path / "model"
    export_run(run, "safetensors", out=out)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "model.safetensors").write_bytes(b"older")
    (out / "notes.txt").write_text("mine")
    moved, replace = [0], Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target.parent == out and moved[0] == kept:
            raise KeyboardInterrupt
        moved[0] += target.parent == out
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt) if kept < 6 else nullcontext():
            export_run(run, "safetensors", out=out)
    begun = (out / "export.json").exists()
    assert not begun or kept in (0, 6)
    export_run(run, "safetensors", out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole | {"notes.txt": b"mine"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_own_module_and_own_plugin(
    small: Data, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    trained = sl.train(net, small, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    before = net[1].weight.detach().clone()
    with pytest.raises(
        ConfigError, match=r"trained on your own module Sequential .*export it from Python: .*module=net"
    ):
        export_run(RunFolder(trained.folder), "onnx")
    found = sl.export(trained.folder, "onnx", module=net)
    assert found.shown == "random", "the data are the caller's own"
    assert sl.export(trained, "safetensors").difference < 1e-5
    assert net[1].weight.equal(before)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert np.allclose(open_predictor(found.file).answer(x)[0], trained.model()(x).detach(), atol=1e-5)

    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef mine(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    own = sl.train(
        "mine.py:mine", small, out=tmp_path / "runs", name="own", epochs=1, precision="float32", threads=1
    )
    with pytest.raises(ConfigError, match="--trust"):
        export_run(RunFolder(own.folder), "onnx")
    alike(own.folder, sl.export(own, "onnx").file, pictures)
    weights = export_run(RunFolder(own.folder), "safetensors", out=tmp_path / "weights", trust=True).file
    assert [path.parent.name for path in weights.rglob("*.py")] == ["plugins"]
    with pytest.raises(ConfigError, match="--trust"):
        open_predictor(weights)
    alike(own.folder, weights, pictures)


BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "export.md").read_text(), re.DOTALL
)


@pytest.mark.slow
def test_the_page_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last three blocks need no stresslens, and give the run's answers."""
    monkeypatch.chdir(tmp_path)
    first, *plain = BLOCKS
    assert len(plain) == 3
    names: dict[str, Any] = {}
    exec(compile(first, "export.md", "exec"), names)
    expected = sl.load(names["run"].folder)(
        torch.from_numpy(np.random.default_rng(0).random((3, 1, 8, 8), np.float32))
    ).detach()
    names = {}
    for block in plain:
        assert not re.search(r"(import|from) stresslens|sl\.", block)
        exec(compile(block, "export.md", "exec"), names)
        if "logits" in block:
            assert torch.allclose(torch.as_tensor(names["logits"]), expected, atol=1e-5)
    scaled = torch.softmax(expected / names["facts"]["temperature"], 1)
    assert torch.allclose(torch.from_numpy(names["probabilities"]), scaled, atol=1e-5)
    net = registry.resolve("models", names["card"]["model"])(
        shape=(1, 8, 8), classes=10, names=names["card"]["classes"]
    )
    net.load_state_dict(names["weights"])
    assert torch.allclose(net.eval()(names["normalized"]), expected, atol=1e-5)
