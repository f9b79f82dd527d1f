"""Any bytes as a file of weights or an exported model give a result, or one message with the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from malformed import FEW, MANY, answer, changed, written
from PIL import Image

from stresslens.core.errors import DataError
from stresslens.core.weights_file import read_state

STATE = {"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}


def pickled(values: Any) -> bytes:
    out = io.BytesIO()
    torch.save(values, out)
    return out.getvalue()


WEIGHTS = {
    "safetensors": safetensors.torch.save(STATE),
    "pt": pickled(STATE),
    "pth": pickled({"state_dict": STATE, "epoch": 3}),
    "bin": pickled([1, 2, {"a": "b"}]),
    "ckpt": pickled({"model": {"1.weight": torch.full((10, 64), torch.nan)}}),
}
EXPORTS = {
    "model.safetensors": WEIGHTS["safetensors"],
    "m.onnx": b"\x08\x08\x12\x07pytorch:\x00",
    "m.pt2": WEIGHTS["pt"],
}


@st.composite
def changed_weights(draw: Any) -> tuple[str, bytes]:
    suffix, content = draw(st.sampled_from(sorted(WEIGHTS.items())))
    suffix = draw(st.sampled_from([suffix, suffix, *sorted(WEIGHTS), "txt", "npz"]))
    return suffix, changed(draw, content)


@st.composite
def changed_exports(draw: Any) -> tuple[str, bytes]:
    name, content = draw(st.sampled_from(sorted(EXPORTS.items())))
    return name, changed(draw, content)


def of_weights(folder: Path, weights: tuple[str, bytes]) -> None:
    file = written(folder, f"w.{weights[0]}", weights[1])
    try:
        found = read_state(file)
    except DataError as error:
        if file.name not in str(error):
            raise
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


def of_predict(folder: Path, export: tuple[str, bytes]) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "photo.png")
    (folder / "export").mkdir(exist_ok=True)
    file = written(folder / "export", *export)
    answer("predict", str(file), str(folder / "photo.png"), names=[file.name, "export.json"])


@FEW
@given(weights=changed_weights())
def test_any_file_of_weights(tmp_path: Path, weights: tuple[str, bytes]) -> None:
    of_weights(tmp_path, weights)


@FEW
@given(export=changed_exports())
def test_any_exported_model(tmp_path: Path, export: tuple[str, bytes]) -> None:
    of_predict(tmp_path, export)


@pytest.mark.slow
@MANY
@given(weights=changed_weights())
def test_many_files_of_weights(tmp_path: Path, weights: tuple[str, bytes]) -> None:
    of_weights(tmp_path, weights)


@pytest.mark.slow
@MANY
@given(export=changed_exports())
def test_many_exported_models(tmp_path: Path, export: tuple[str, bytes]) -> None:
    of_predict(tmp_path, export)
