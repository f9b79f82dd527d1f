"""Lets torchvision be imported beside a torch that its compiled operators were not built for.

torchvision's wheel on PyPI is built against CUDA's torch. Beside the CPU build its library `_C`
does not load, and the import then stops at "operator torchvision::nms does not exist": a decorator
registers a shape function for an operator that was never declared. Declaring the two missing
schemas first is enough. Nothing here uses the operators themselves (box suppression); datasets,
transforms and the model zoo are plain Python. Where `_C` loads, nothing is declared.

The schemas are declared when torchvision is first imported, by anyone: a plug-in of the user, timm,
open_clip, or a notebook that has imported stresslens before.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_declared: list[Any] = []  # kept, because a torch.library.Library removes its schemas when it is collected


class TorchvisionFinder(importlib.abc.MetaPathFinder):
    """Finds torchvision as the other finders do, and lets its loader declare missing schemas first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, TorchvisionFinder))
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None and spec.origin is not None:
            folder, execute = Path(spec.origin).parent, spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                _declare(folder)
                execute(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _declare(folder: Path) -> None:
    """Declares the missing operator schemas, if the compiled library in torchvision's folder cannot be
    loaded."""
    import torch

    for library in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
    if not hasattr(torch.ops.torchvision, "nms"):
        library_of_schemas = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS.values():
            library_of_schemas.define(schema)
        _declared.append(library_of_schemas)


def cure() -> None:
    """From now on, torchvision can be imported beside the CPU build of torch."""
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())


def is_cured() -> bool:
    """Whether torchvision has been imported and needed the declarations."""
    return bool(_declared)


def torchvision() -> types.ModuleType:
    """The torchvision module."""
    return importlib.import_module("torchvision")


def reason_of(error: Exception) -> str:
    """An error of torchvision in one line, without its hint at an option that is not one here."""
    said = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"[.,]? ?You can (?:use|set) download=True.*", "", said).rstrip(".")
