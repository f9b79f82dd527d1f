"""A trained run, and pictures to ask it about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stresslens.core.data import Data
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training.task import Task


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
