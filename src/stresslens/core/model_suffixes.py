"""Files of models that other software made, by the ends of their names."""

from __future__ import annotations

from pathlib import Path

PLUGINS = {
    ".onnx": "onnx",
    ".pt2": "torch_export",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
}
"""The model plug-in of a file, by the end of its name."""


def is_model_file(path: Path) -> bool:
    """Whether a path is a file of a model of other software."""
    return path.suffix.lower() in PLUGINS and path.is_file()
