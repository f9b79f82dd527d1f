from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from stresslens.core.errors import DataError, first_line
from stresslens.core.foreign_model import ForeignModel, Layout, Output, tried
from stresslens.core.types import Count, ModelFile, Natural, Positive, Shape
from stresslens.plugins.models._foreign import Moments, Side, existing, on_cpu, preparation_of, trust_in

WHAT = "a TorchScript file"
WHY = "a TorchScript file is a program"


def torchscript(
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
    """A module that torch.jit.save wrote, traced or scripted, with its gradient.

    Such a file is a program, so it needs `trusted`. Images in [0, 1] are resized to `size` and become
    (x - `mean`) / `std` · `scale`, in the order `layout` (with `bgr` the blue channel first). `output` says
    whether it returns logits, probabilities (their logarithms are its logits) or labels. `columns` are
    its outputs that are the classes of the data, in their order. `batch` is the number of images of a
    pass, where it was traced for a fixed one. The file is copied into the run. Raises ConfigError or
    DataError for a file that is no such module, or does not fit the images or the classes.
    """
    trust_in(trusted, file, WHY)
    path = existing(file, WHAT)
    try:
        with on_cpu(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # an archive of something else may fail anywhere
        why = first_line(error)[:200]
        if "constants.pkl" in why:
            why = (
                "it holds weights or something else, and no program; weights belong to a net of yours: "
                "model=FILE.py:Net model.weights={file: PATH}"
            )
        raise DataError(f"{path} cannot be read as {WHAT}: {why}") from error
    model = ForeignModel(
        module.eval(),
        f"the TorchScript module {Path(file).name}",
        classes=classes,
        layout=layout,
        bgr=bgr,
        output=output,
        columns=columns,
        batch=batch,
    )
    return tried(model, shape, classes)


def trainable() -> bool:
    return False


def needs_trust() -> str:
    return WHY


own_preprocessing = preparation_of
