"""The data of a run that lie elsewhere than when it was trained: found above the run, or given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.errors import ConfigError, DataError, GateNotMet, Problems
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.run_data import data_of, same_data_of

OPTIONS: dict[str, Any] = {"epochs": 1, "precision": "float32"}


def photographs(folder: Path, *, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for name, level in (("cat", 60), ("dog", 180)):
        (folder / name).mkdir(parents=True)
        for k in range(15):
            pixels = random.normal(level, 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sl.Run:
    """A run on pictures that are named by a relative path; its folder has an absolute one."""
    home = tmp_path / "home"
    photographs(home / "photos")
    monkeypatch.chdir(home)
    trained = sl.train("linear", "photos", out=home / "runs", name="run", **OPTIONS)
    found = sl.open(trained.folder)
    assert isinstance(found, sl.Run)
    return found


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def test_a_relative_path_is_found_from_another_folder(
    run: sl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, monkeypatch)
    assert same_data_of(RunFolder(run.folder)).fingerprint == run.record["data"]["fingerprint"]
    assert sl.evaluate(run, split="train")


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    "asked",
    [
        lambda run, **data: sl.attack(run, radii=0.1, protocol=["fgsm"], audit=False, **data),
        lambda run, **data: sl.explain(run, explainer="saliency", **data),
        lambda run, **data: sl.verify(run, np.zeros((2, 3, 8, 8), np.float32), eps=0.5, **data),
        lambda run, **data: sl.check_data(sl.open(run, **data)),
    ],
    ids=["attack", "explain", "verify", "check_data"],
)
def test_after_a_move_the_message_names_the_argument_and_the_argument_works(
    asked: Any, run: sl.Run, tmp_path: Path
) -> None:
    shutil.move("photos", tmp_path / "pictures")
    with pytest.raises(DataError, match=r"there is no photos.* say where: data=PATH"):
        asked(run)
    assert asked(run, data=tmp_path / "pictures")
    assert asked(run, data=str(tmp_path / "pictures"))


def test_other_data_are_refused_by_their_fingerprint(run: sl.Run, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"radii": 0.1, "protocol": ["fgsm"], "audit": False}
    others = photographs(tmp_path / "others", seed=1)
    with pytest.raises(ConfigError, match="others holds other data than the run was trained on"):
        sl.attack(run, data=others, **asked)
    with pytest.raises(DataError, match=r"there is no .*missing"):
        sl.attack(run, data=tmp_path / "missing", **asked)
    digits = sl.Data.from_arrays(np.zeros((20, 3, 8, 8), np.uint8), [0, 1] * 10)
    with pytest.raises(ConfigError, match="these are other data than the run was trained on"):
        sl.attack(run, data=digits, **asked)
    with pytest.raises(ConfigError, match="data is an int; expected the data that the run was trained on"):
        sl.attack(run, data=5, **asked)  # type: ignore[arg-type]
    shutil.rmtree("photos")
    photographs(Path("photos"), seed=2)
    with pytest.raises(ConfigError, match=r"has changed since.* If the old data lie elsewhere.*data=PATH"):
        sl.attack(run, **asked)


def test_a_mistake_in_the_settings_of_data_that_have_moved_is_said(run: sl.Run) -> None:
    """An option that this version does not know is an error of several mistakes."""
    shutil.move("photos", "pictures")
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("path: photos", "path: photos\n    unknown: 3"))
    with pytest.raises(Problems, match=r"no option 'unknown'.* say where: --data PATH"):
        data_of(RunFolder(run.folder))


@pytest.mark.slow
def test_the_commands_take_it_too(run: sl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "mine.npz").write_bytes(b"")
    np.savez(run.folder / "mine.npz", adversarials=np.zeros((2, 3, 8, 8), np.float32), eps=0.5, norm="linf")
    shutil.move("photos", tmp_path / "pictures")
    elsewhere(tmp_path, monkeypatch)
    commands = [
        ["evaluate", str(run.folder)],
        ["attack", str(run.folder), "--radii", "0.1", "--protocol", "[fgsm]", "--no-audit"],
        ["explain", str(run.folder), "--explainer", "saliency", "--view", "embedding"],
        ["verify", str(run.folder), str(run.folder / "mine.npz")],
    ]
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, DataError), command
        assert str(result.exception).endswith("If the data lie elsewhere now, say where: --data PATH")
        result = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "pictures")])
        assert result.exit_code == 0 or isinstance(result.exception, GateNotMet), result.output


@pytest.mark.slow
def test_data_sets_without_a_path_are_looked_for_in_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MNIST, whose files lie under the data root."""
    (tmp_path / "own.py").write_text(
        "import numpy as np\nfrom stresslens.core.data import Data, data_root\n"
        "def own():\n    x = np.load(data_root() / 'x.npy')\n"
        "    return Data.from_arrays(x, [0, 1] * (len(x) // 2), name='own')\n"
    )
    there, now = tmp_path / "there", tmp_path / "now"
    there.mkdir()
    np.save(there / "x.npy", np.random.default_rng(0).random((20, 1, 4, 4)))
    monkeypatch.setenv("STRESSLENS_DATA", str(there))
    monkeypatch.chdir(tmp_path)
    run = sl.train("linear", "own.py:own", out="runs", **OPTIONS)
    shutil.move(there, now)
    assert (
        data_of(RunFolder(run.folder), trust=True, data=now).fingerprint == run.record["data"]["fingerprint"]
    )
    found = sl.attack(run, radii=0.1, protocol=["fgsm"], audit=False, data=now)
    assert found.result.n


def test_data_of_ones_own_are_there_in_the_same_session(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 1, 4, 4)).astype(np.float32)
    data = sl.Data.from_arrays(images, [0, 1] * 20)
    asked: dict[str, Any] = {"radii": 0.1, "protocol": ["fgsm"], "audit": False}
    run = sl.train("linear", data, out=tmp_path, **OPTIONS)
    assert sl.attack(run, **asked).result.n
    again = sl.open(run.folder)
    assert isinstance(again, sl.Run)
    with pytest.raises(ConfigError, match=r"was trained on your own data .*; give these data from Python"):
        sl.explain(again)
    assert sl.explain(again, explainer="saliency", data=data).maps.shape[1:] == (4, 4)
