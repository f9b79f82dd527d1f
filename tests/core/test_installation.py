"""Packages of another environment, which a path file or PYTHONPATH adds, are installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["site-packages", "dist-packages", "mine"])
def test_packages_of_another_environment(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    file = str(folder / "a.py")
    code = f"from stresslens.core.installation import is_installed; print(is_installed({file!r}))"
    paths = [str(Path(path).resolve()) for path in sys.path if path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *paths])}
    answer = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(name != "mine")
