"""The wheel: built, installed into a fresh environment outside the repository, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from draw_architecture import FILES, ROOT, SOURCE

pytestmark = pytest.mark.slow  # builds a wheel, makes an environment, trains

STUDY = "data: {digits: {subset: 100}}\nmodel: linear\ntrain: {epochs: 1, precision: float32, threads: 1}\n"


def done(command: Sequence[str | Path], folder: Path) -> str:
    """What a command prints, in a folder outside the repository and without its paths."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    outcome = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-3000:]
    return outcome.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    done([*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT], folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment. It has the wheel of its own; the heavy packages are
    those of this interpreter, at the end of the path."""
    folder = tmp_path_factory.mktemp("environment")
    done([sys.executable, "-m", "venv", folder / "venv"], folder)
    found = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [found, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    done([*pip, wheel], folder)
    site = Path(done([found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "others.pth").write_text("\n".join(here))
    return found


def test_it_holds_every_module_and_template_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {str(file.relative_to(SOURCE.parent).as_posix()) for file in FILES} <= held
    data = {path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    studies = {path for path in (ROOT / "studies").rglob("*") if path.suffix in (".yaml", ".json", ".py")}
    assert held == {
        *(path.relative_to(SOURCE.parent).as_posix() for path in data),
        *(f"stresslens/{path.relative_to(ROOT).as_posix()}" for path in studies),
    }


def test_what_it_says_about_itself(wheel: Path) -> None:
    (name,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    said = zipfile.ZipFile(wheel).read(name).decode()
    for extra in ("classical", "tensorboard", "sweep", "clip", "onnx", "parquet", "ray", "wandb", "all"):
        assert f"Provides-Extra: {extra}\n" in said
    assert "\nRequires-Dist: filelock>=3.30" in said


def test_it_works_in_a_fresh_environment(python: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    command = python.with_name("stresslens")
    place = done([python, "-c", "import stresslens; print(stresslens.__file__)"], tmp_path).strip()
    assert Path(place).is_relative_to(python.parents[1])
    assert done([command, "--version"], tmp_path).startswith("stresslens ")
    done([command, "init", "--study", "cifar-first-cnn", "--study", "quickstart"], tmp_path)
    done([command, "run", "studies/cifar-first-cnn.yaml", "--dry-run"], tmp_path)
    done([command, "run", "study.yaml"], tmp_path)
    run = tmp_path / "runs" / "study" / "run" / "seed-0"
    assert (
        (tmp_path / "runs" / "study" / "report.html")
        .read_text(encoding="utf-8")
        .startswith("<!doctype html>")
    )
    done([command, "attack", run, "--radii", "0.1", "--protocol", "[fgsm]", "--images", "8"], tmp_path)
    done([command, "explain", run, "--explainer", "saliency", "--images", "2"], tmp_path)
    assert "linear" in done([command, "list", "models"], tmp_path)
    script = "import stresslens as sl; print(sl.load('runs/study/run/seed-0').training)"
    assert done([python, "-c", script], tmp_path) == "False\n"
