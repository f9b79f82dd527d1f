"""`stresslens export --to docker`: the folder has the model, the versions, and a wheel that works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import stresslens as sl
from stresslens.core.version import __version__
from stresslens.evaluation.docker_export import WHEEL, installed_versions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    out = tmp_path_factory.mktemp("runs")
    return sl.train("linear", "digits", epochs=1, precision="float32", out=out, progress=False)


@pytest.fixture(scope="module")
def folder(run: sl.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sl.export(run, "docker", out=tmp_path_factory.mktemp("made") / "container").file


def test_the_folder_answers_as_the_run(run: sl.Run, folder: Path) -> None:
    x = torch.rand(5, 1, 8, 8)
    assert np.asarray(sl.predict(folder, x)) == pytest.approx(np.asarray(sl.predict(run, x)), abs=1e-6)


def test_the_dockerfile_copies_what_is_there(folder: Path) -> None:
    text = (folder / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert [(folder / name).exists() for line in copied for name in line.split()] == [True] * 3
    assert f"FROM python:{sys.version_info[0]}.{sys.version_info[1]}-slim" in text
    assert 'CMD ["stresslens", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]' in text
    assert "docker build -t run-digits-linear-" in text


def test_the_versions_are_those_installed_here(folder: Path) -> None:
    pinned = dict(line.split("==") for line in (folder / "requirements.txt").read_text().splitlines())
    assert {"torch", "numpy", "pillow", "safetensors", "typer"} <= set(pinned)
    assert {name: metadata.version(name).partition("+")[0] for name in pinned} == pinned
    assert "stresslens" not in pinned
    assert "pytest" not in pinned
    assert set(installed_versions()) < set(installed_versions("timm"))


@pytest.mark.slow
def test_the_wheel_is_installed_by_pip_and_works(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", target, folder / WHEEL], check=True)
    told = subprocess.run(
        [sys.executable, "-m", "stresslens", "--version"],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert __version__ in told.stdout
    assert (target / "stresslens/report/templates/report.css").is_file()
    assert (target / "bin/stresslens").is_file()
