"""Lets torchvision be imported beside a torch that its compiled operators were not built for.

torchvision's wheel on PyPI is built against CUDA's torch. Beside the CPU build its library `_C`
does not load, and the import then stops at "operator torchvision::nms does not exist": a decorator
registers a shape function for an operator that was never declared. Declaring the two missing
schemas first is enough. Nothing here uses the operators themselves (box suppression); datasets,
transforms and the model zoo are plain Python. Where `_C` loads, nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_declared: list[Any] = []  # kept, because a torch.library.Library removes its schemas when it is collected


def cure() -> None:
    """Declares torchvision's missing operator schemas, once, if its compiled library cannot be
    loaded."""
    spec = importlib.util.find_spec("torchvision")
    if _declared or spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
    if not hasattr(torch.ops.torchvision, "nms"):
        library_of_schemas = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS.values():
            library_of_schemas.define(schema)
        _declared.append(library_of_schemas)


def torchvision() -> ModuleType:
    """The torchvision module, imported after `cure`."""
    cure()
    return importlib.import_module("torchvision")
