from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import DataError, first_line
from stresslens.core.foreign_model import ForeignModel, Layout, Output, tried
from stresslens.core.types import Count, ModelFile, Natural, Positive, Shape
from stresslens.plugins.models._foreign import (
    Moments,
    Side,
    existing,
    fixed,
    on_cpu,
    preparation_of,
    trust_in,
)

WHAT = "a program of torch.export (.pt2)"
WHY = "torch unpickles parts of a program of torch.export"


def torch_export(
    shape: Shape,
    classes: int,
    *,
    file: ModelFile,
    trusted: bool = False,
    output: Output = "logits",
    columns: tuple[Natural, ...] | None = None,
    layout: Layout = "nchw",
    bgr: bool = False,
    mean: Moments | None = None,
    std: Moments | None = None,
    scale: Positive = 1.0,
    size: Side | None = None,
    batch: Count | None = None,
) -> nn.Module:
    """A program of torch.export (.pt2), with its gradient.

    Opening such a file can run any code, so it needs `trusted`. Images in [0, 1] are resized to `size`
    and become (x - `mean`) / `std` · `scale`, in the order `layout` (with `bgr` the blue channel first).
    `output` says whether it returns logits, probabilities (their logarithms are its logits) or labels.
    `columns` are its outputs that are the classes of the data, in their order. `batch` is the number of
    images of a pass; by default that of the program, if it was exported for a fixed one. The file is
    copied into the run. Raises ConfigError or DataError for a file that is no such program, or does not
    fit the images or the classes.
    """
    trust_in(trusted, file, WHY)
    program, sizes = _program(file)
    model = ForeignModel(
        program,
        f"the program {Path(file).name}",
        classes=classes,
        layout=layout,
        bgr=bgr,
        output=output,
        columns=columns,
        batch=batch or (sizes[0] if sizes else None),
    )
    return tried(model, shape, classes)


def trainable() -> bool:
    return False


def needs_trust() -> str:
    return WHY


own_preprocessing = preparation_of


def _program(file: str) -> tuple[nn.Module, tuple[int | None, ...]]:
    """The program as a module, and the sizes of its images that are fixed."""
    path = existing(file, WHAT)
    try:
        with on_cpu(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files of other versions
            program = torch.export.load(path)
            module: nn.Module = program.module()
            sizes = _sizes(program)
    except Exception as error:  # an archive of something else may fail anywhere
        raise DataError(f"{path} cannot be read as {WHAT}: {first_line(error)[:200]}") from error
    return module, sizes


def _sizes(program: Any) -> tuple[int | None, ...]:
    names = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names and isinstance(node.meta.get("val"), Tensor):
            return fixed(node.meta["val"].shape)
    return ()
