"""Folders of runs and images on the command line, as the shell's patterns give them; and the names of
the folders that trainings get."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stresslens.cli.main import app
from stresslens.core.run_folder import run_folders

Type = Callable[..., tuple[int, str, str]]
SHORT = ("train.epochs=1", "train.precision=float32", "train.threads=1")
TRAININGS = (
    ("photos", "linear", *SHORT),
    ("photos", "mlp", *SHORT),
    ("photos", "{mlp: {widths: [4]}}", *SHORT),
    ("b/photos", "linear", *SHORT),
    ("photos", "linear", *SHORT, "train.loss=mse"),
    ("photos", "knn", "train.threads=1"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    numbers = np.random.default_rng(0)
    for root in ("photos", "b/photos"):
        for name, base in (("dark", 60), ("light", 180)):
            (folder / root / name).mkdir(parents=True)
            for k in range(20):
                pixels = np.clip(base + 30 * numbers.normal(size=(8, 8, 3)), 0, 255).astype("uint8")
                Image.fromarray(pixels).save(folder / root / name / f"{k}.png")
    (folder / "new").mkdir()
    Image.new("RGB", (8, 8), (50, 50, 50)).save(folder / "new" / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in TRAININGS:
            assert CliRunner().invoke(app, ["train", *words, "-q"]).exit_code == 0, words
    return folder


@pytest.fixture
def here(trained: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the runs as the shell gives them for `runs/train/run*/seed-0`."""
    monkeypatch.chdir(trained)
    return sorted(map(str, Path().glob("runs/train/run*/seed-0")))


@pytest.mark.slow
def test_each_training_has_a_folder_of_its_own_and_keeps_it(here: list[str], type_: Type) -> None:
    assert len(here) == len(TRAININGS)
    before = {run: (Path(run) / "record.json").stat().st_mtime_ns for run in here}
    for words in (*TRAININGS, ("./photos/", *TRAININGS[0][1:])):
        assert type_("train", *words, "-q")[0] == 0
    assert {run: (Path(run) / "record.json").stat().st_mtime_ns for run in before} == before
    assert sorted(str(run.path) for run in run_folders(Path("runs"))) == here


def test_predict_takes_the_runs_of_a_pattern_side_by_side(here: list[str], type_: Type) -> None:
    code, out, _ = type_("predict", *here, "new", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["run"], row["file"]) for row in rows] == [(run, "new/a.png") for run in here]
    assert "out of distribution" in type_("predict", *here[:2], "new")[1]
    document = json.loads(type_("predict", *here[:2], "new", "--json")[1])
    assert [each["run"] for each in document["runs"]] == here[:2]
    assert "run" not in type_("predict", here[0], "new", "--csv")[1].splitlines()[0].split(",")


@pytest.mark.breadth(7)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict new RUN", "new is not the folder of a run (…/seed-0), which comes first"),
        ("predict RUN", "no image is given behind"),
        ("predict RUN OTHER", "no image is given behind"),
        ("predict RUN new OTHER", "the folder of a run is never read as images; the runs come first"),
        ("predict RUN new runs", "the folder of a run is never read as images"),
        ("predict runs/train new", "is not the folder of a run, but holds runs/train/"),
        ("predict runs new", "is not the folder of a run, but holds runs/train/"),
        ("evaluate RUN OTHER", "evaluate takes one run"),
        ("evaluate new", "new is not the folder of a run"),
        ("evaluate nowhere", "there is no nowhere"),
        ("attack RUN OTHER --radii 0.1", "for the first: stresslens attack"),
        ("attack photos --radii 0.1", "photos is not the folder of a run"),
        ("explain RUN OTHER", "never read as images; for one run: stresslens explain "),
        ("explain RUN OTHER new/a.png", "/seed-0 new/a.png"),
        ("explain new RUN", "new is not the folder of a run"),
        ("export RUN OTHER --to onnx", "export takes one run"),
        ("export runs/train --to onnx", "is not the folder of a run, but holds"),
        ("verify RUN OTHER", "cannot be read"),
        ("verify new x.npz", "new is not the folder of a run"),
        ("report RUN OTHER", "for the first: stresslens report"),
        ("report photos", "there is no run in photos"),
        ("compare RUN photos", "photos is not the folder of a run"),
        ("data check RUN", "is a folder of runs that stresslens trained, not of images"),
        ("data stats runs", "is a folder of runs that stresslens trained, not of images"),
        ("train VARIANT linear", "is a folder of runs that stresslens trained, not of images"),
    ],
)
def test_runs_and_images_are_not_taken_for_each_other(
    here: list[str], type_: Type, words: str, said: str
) -> None:
    meant = {"RUN": here[0], "OTHER": here[1], "VARIANT": str(Path(here[0]).parent)}
    code, out, err = type_(*(meant.get(word, word) for word in words.split()))
    assert code in (2, 3)
    assert out == ""
    assert said in err
    if re.search("for the first:|for one run:", said):  # a command to type
        named = shlex.split(err.strip().rpartition("stresslens ")[2])
        assert named[1] == here[0]


def test_exported_models_are_taken_like_runs(here: list[str], type_: Type) -> None:
    assert type_("export", here[1], "--to", "safetensors", "--out", "exported")[0] == 0
    rows = list(csv.DictReader(io.StringIO(type_("predict", "exported", here[1], "new", "--csv")[1])))
    assert [row["run"] for row in rows] == ["exported", here[1]]
    assert rows[0]["probability_1"] == rows[1]["probability_1"]
    shutil.rmtree("exported")


def test_images_in_the_folders_of_runs_are_left_out_with_a_notice(here: list[str], type_: Type) -> None:
    with pytest.warns(match="image files in the folders of runs are left out"):
        code, out, _ = type_("predict", here[0], ".", "--csv")
    assert code == 0
    assert len(out.splitlines()) == 1 + 40 + 40 + 1
    assert "runs/" not in out


def test_a_variants_folder_with_one_run_is_that_run(
    here: list[str], type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = Path(here[0]).absolute().parent
    shutil.copytree("photos", tmp_path / "photos")
    copied = Path(shutil.copytree(variant, tmp_path / "runs" / "train" / "mine"))
    monkeypatch.chdir(tmp_path)
    assert type_("predict", "runs/train/mine", "photos", "--csv")[0] == 0
    assert type_("evaluate", "runs/train/mine", "--json")[0] == 0
    shutil.copytree(copied / "seed-0", copied / "seed-3")
    code, _, err = type_("evaluate", "runs/train/mine")
    assert code == 2
    assert "holds runs/train/mine/seed-0 and runs/train/mine/seed-3; give one of them" in err


def test_a_folder_of_version_0_3_0_goes_on(
    here: list[str], type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It called each run `run` with the overrides."""
    words = TRAININGS[0]
    shutil.copytree("photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert type_("train", *words, "--name", ",".join(["run", *SHORT]), "-q")[0] == 0
    assert type_("train", *words, "-q")[0] == 0
    assert type_("train", "photos", "mlp", *SHORT, "-q")[0] == 0
    assert sorted(run.path.parent.name for run in run_folders(Path("runs"))) == [
        ",".join(["run", "photos", "mlp", *SHORT]),
        ",".join(["run", *SHORT]),
    ]
