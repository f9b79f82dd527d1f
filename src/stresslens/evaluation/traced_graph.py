"""The graph of a model as torch.export traces it: images → logits and features."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, first_line
from stresslens.core.inspection import feature_layer, with_features
from stresslens.core.types import Shape


class _WithFeatures(nn.Module):
    """Images → logits, and the features for out-of-distribution detection."""

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.model = model
        self.layer = (
            feature_layer(model, shape)[0],
        )  # in a tuple, so that it is not registered as a second submodule

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return with_features(self.model, self.layer[0], images)


def dynamic_shapes() -> dict[str, Any]:
    """The batch dimension may have any size."""
    return {"images": {0: torch.export.Dim("batch")}}


@contextmanager
def said_if_it_works() -> Iterator[None]:
    """Holds back what is printed, logged and warned of, and says it afterwards, but not after an error:
    torch prints whole graphs before it raises one."""
    printed, logs = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            redirect_stdout(printed),
            redirect_stderr(printed),
            warnings.catch_warnings(record=True) as caught,
        ):
            yield
    finally:
        logging.disable(logs)
    for each in caught:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    sys.stderr.write(printed.getvalue())


def traced_graph(model: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    """The model as a program of torch.export, for batches of any size.

    Raises ConfigError if torch cannot trace the model, for example if it branches on values.
    """
    try:
        with torch.no_grad(), said_if_it_works():
            whole, example = _WithFeatures(model, shape).eval(), torch.zeros(2, *shape)
            # Some nets cache constants of evaluation on first use; they then are constants of the graph.
            whole(example)
            program = torch.export.export(whole, (example,), dynamic_shapes=dynamic_shapes(), strict=False)
    except Exception as error:  # torch and users' modules may raise anything
        raise ConfigError(
            f"torch.export cannot follow the model: {first_line(error)}\n"
            "Usual causes: the batch size taken with len(x) (x.shape[0] stays open), "
            "and branches that depend on values. Every model can be exported with --to safetensors"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of the machine that exports
    return program
