from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.extras import extra
from stresslens.core.files import digest_of_file
from stresslens.core.foreign_model import ForeignModel, Layout, Output, tried
from stresslens.core.pretrained import Preprocessing
from stresslens.core.types import Count, ModelFile, Natural, Positive, Shape
from stresslens.plugins.models._foreign import Moments, Side, existing, fixed, preparation_of

EXTRA = "onnx"
WHAT = "an ONNX file (.onnx)"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
"""Types of images that a graph may take."""
COLOURS = (1, 3, 4)


def onnx(
    shape: Shape,
    classes: int,
    *,
    file: ModelFile,
    output: Output = "logits",
    columns: tuple[Natural, ...] | None = None,
    layout: Layout | Literal["auto"] = "auto",
    bgr: bool = False,
    mean: Moments | None = None,
    std: Moments | None = None,
    scale: Positive | None = None,
    size: Side | None = None,
    score: str | None = None,
    batch: Count | None = None,
) -> nn.Module:
    """An ONNX graph of any software, computed by onnxruntime on the CPU. It has no gradient.

    Images in [0, 1] are resized to `size` and become (x - `mean`) / `std` · `scale`, in the order `layout`
    (with `bgr` the blue channel first). Without these options they are as the graph's input says: its fixed
    size and channels, its layout, and 255 as white where it takes bytes. `output` says whether it
    returns logits, probabilities (their logarithms are its logits) or labels. `columns` are its outputs
    that are the classes of the data, in their order; without it there must be as many. `score` is the name
    of the output with the scores, where there are several. `batch` is the number of images of a pass; by
    default that of the graph, if it is fixed. The file is copied into the run. Raises ConfigError or
    DataError for a file that is no such graph, or does not fit the images or the classes.
    """
    session, digest = _session(file)
    given = session.get_inputs()[0]
    wanted = fixed(given.shape)
    name = _score_name(session, score)
    dtype = TYPES[given.type]
    whole = dtype is np.uint8

    def answer(images: np.ndarray) -> Any:
        prepared = np.rint(images).clip(0, 255) if whole else images
        return session.run([name], {given.name: prepared.astype(dtype)})[0]

    model = ForeignModel(
        answer,
        f"the ONNX graph {Path(file).name}",
        classes=classes,
        layout=_layout(wanted) if layout == "auto" else layout,
        bgr=bgr,
        output=output,
        columns=columns,
        batch=batch or (wanted[0] if wanted else None),
        digest=digest,
    )
    return tried(model, shape, classes)


def trainable() -> bool:
    return False


def own_preprocessing(
    *,
    shape: Shape,
    file: str,
    layout: str,
    mean: Moments | None,
    std: Moments | None,
    scale: float | None,
    size: Side | None,
) -> Preprocessing:
    """How images of a shape (C, H, W) are prepared for the graph."""
    given = _session(file)[0].get_inputs()[0]
    wanted = fixed(given.shape)
    order = _layout(wanted) if layout == "auto" else layout
    channels = height = width = None
    if len(wanted) == 4:
        channels, height, width = wanted[1:] if order == "nchw" else (wanted[3], *wanted[1:3])
    own = (height, width) if height and width else None
    white = scale or (255.0 if given.type == "tensor(uint8)" else 1.0)
    return preparation_of(shape=shape, mean=mean, std=std, scale=white, size=size or own, channels=channels)


def files_beside(*, file: str) -> list[Path]:
    """The files with the weights of a graph that does not hold them itself."""
    with extra("onnx", "the model onnx"):
        import onnx as library
    path = existing(file, WHAT)
    try:
        graph = library.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf raises errors of its own
        raise DataError(f"{path} cannot be read as an ONNX model: {first_line(error)}") from error
    names = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(names):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{path} keeps weights in {name}, outside its folder; save it with its weights")
        existing(str(path.parent / name), f"the weights of {path.name}, which lie beside it")
    return [path.parent / name for name in sorted(names)]


def _layout(sizes: tuple[int | None, ...]) -> Layout:
    """The layout that the sizes of the graph's input tell."""
    if len(sizes) == 2:
        return "flat"
    last = len(sizes) == 4 and sizes[3] in COLOURS and sizes[1] not in COLOURS
    return "nhwc" if last else "nchw"


def _session(file: str) -> tuple[Any, str]:
    """The graph, ready to be computed, and a digest of its files."""
    digests = (digest_of_file(path) for path in (Path(file), *files_beside(file=file)))
    found = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    return _session_of(file, found, torch.get_num_threads()), found


@lru_cache(maxsize=4)
def _session_of(file: str, digest: str, threads: int) -> Any:
    with extra("onnx", "the model onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class for each status code
        raise DataError(f"{file} cannot be read as an ONNX model: {first_line(error)[:200]}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise ConfigError(f"{file} has {len(inputs)} inputs ({names}); expected one, the images")
    if inputs[0].type not in TYPES:
        raise ConfigError(
            f"{file} takes {inputs[0].type}; expected images as {', '.join(TYPES)} ({inputs[0].name})"
        )
    return session


def _score_name(session: Any, asked: str | None) -> str:
    """The name of the output with the scores."""
    found = [each.name for each in session.get_outputs()]
    if asked is not None:
        if asked not in found:
            raise ConfigError(f"score: the graph has no output {asked!r}; it has {', '.join(found)}")
        return asked
    tensors = [each for each in session.get_outputs() if each.type.startswith("tensor(float")]
    tensors = [each for each in session.get_outputs() if each.type == "tensor(double)"] + tensors
    named = [each.name for each in tensors if each.name in ("logits", "scores", "probabilities")]
    if len(named) == 1 or len(tensors) == 1:
        return str((named or [tensors[0].name])[0])
    raise ConfigError(
        f"the graph has the outputs {', '.join(found)}; say which holds the scores: score: NAME"
    )
