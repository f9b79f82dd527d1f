"""Weights files: the tensors of a safetensors file, or of a state dict that torch saved."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, DataError, first_line

CHECKPOINT_KEYS = (
    "state_dict_ema",
    "model_ema",
    "model_ema_state_dict",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
)
"""Where checkpoints hold a state dict, in the order in which they are looked up; as in timm, a moving
average of the weights comes first."""
_scalar: Any = np.float64(0).__reduce__()[0]
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdg"},
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""Options and numbers of numpy, which checkpoints hold beside tensors and which execute nothing."""
WRAPPER = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""A part of a name that only a wrapper puts there: torch.compile, FSDP, activation checkpointing,
Lightning Fabric."""
MAYBE_WRAPPER = ("module", "_module")
"""A part of a name that DataParallel, AveragedModel and others put there, or the net itself."""
REFETCH = "if it is incomplete or damaged, download it again"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a state dict that torch saved.

    No code of the file is executed. A state dict inside a checkpoint is found (`CHECKPOINT_KEYS`),
    and the parts of names that wrappers put there are removed; for others see `unwrapped`. Raises
    DataError if the file is missing or incomplete, holds objects besides tensors, or holds no tensors.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(2)
    try:
        if path.suffix == ".safetensors":
            return _plain_names(safetensors.torch.load_file(path))
        if not start.startswith((b"PK", b"\x80")):
            raise ValueError("it is not a file of torch; a safetensors file ends in .safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about pickles of other versions
            with torch.serialization.safe_globals(PLAIN):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it holds objects besides tensors, which could execute anything; save its state dict alone"
        raise DataError(f"{path} cannot be read as weights: {why}") from error
    except Exception as error:
        scripted = "TorchScript" in str(error)
        why = (
            "it is a TorchScript archive; save its state dict"
            if scripted
            else f"{first_line(error)[:160]}; {REFETCH}"
        )
        raise DataError(f"{path} cannot be read as weights: {why}") from error
    while (inner := _state_dict_in(content)) is not None:
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path} holds no state dict (tensors by name)")
    return _plain_names({str(name): value for name, value in content.items() if isinstance(value, Tensor)})


def _state_dict_in(content: Any) -> Mapping[Any, Any] | None:
    """What a checkpoint holds under the first of the `CHECKPOINT_KEYS` that it has, or else its only
    dictionary of tensors; None for a state dict itself."""
    if not isinstance(content, Mapping):
        return None
    for key in CHECKPOINT_KEYS:
        if isinstance(content.get(key), Mapping) and _holds_tensors(content[key]):
            return content[key]  # type: ignore[no-any-return]
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    inner = [value for value in content.values() if isinstance(value, Mapping)]
    inner = [each for each in inner if any(isinstance(value, Tensor) for value in each.values())]
    return inner[0] if len(inner) == 1 else None


def _holds_tensors(content: Any) -> bool:
    """Whether a value is a tensor or a mapping that holds one at any depth; options are neither."""
    if isinstance(content, Mapping):
        return any(_holds_tensors(value) for value in content.values())
    return isinstance(content, Tensor)


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the parts that wrappers put anywhere into their names, and without the prefix
    of DataParallel. A name that another tensor has stays as it is."""
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = WRAPPER.sub("", name)
        plain[name if short in plain or (short != name and short in tensors) else short] = value
    wrapped = all(name.startswith("module.") for name in plain)
    return {name.removeprefix("module."): value for name, value in plain.items()} if wrapped else plain


def unwrapped(weights: Mapping[str, Tensor], names: Collection[str], source: str) -> dict[str, Tensor]:
    """Weights under the `names` of a net: without the prefix that a wrapper put before them
    (`module.` of DataParallel and AveragedModel, `model.` of a Lightning module, any other), and without
    `module.` inside the names (`features.module.0.weight`), where the net has no such part.

    Other tensors keep their names. Raises ConfigError if the weights hold several such nets.
    """
    known = {_without_inner_wrappers(name): name for name in names}
    given = {_without_inner_wrappers(name): value for name, value in weights.items()}
    if len(known) < len(names) or len(given) < len(weights):  # two names would become one
        known, given = {name: name for name in names}, dict(weights)
    anchors = {f".{name}" for name in (next(iter(known), ""), max(known, key=len, default=""))}
    prefixes = {
        name[: len(name) - len(anchor) + 1] for name in given for anchor in anchors if name.endswith(anchor)
    }
    found = {
        prefix: sum(name.startswith(prefix) and name[len(prefix) :] in known for name in given)
        for prefix in ["", *sorted(prefixes)]
    }
    most = max(found.values())
    best = [prefix for prefix, count in found.items() if count == most]
    if len(best) > 1 and best[0]:
        raise ConfigError(
            f"{source}: the weights hold {len(best)} such nets, under {', '.join(best)}; "
            "save one of them alone"
        )
    short = {name: name.removeprefix(best[0]) for name in given}
    return {known.get(short[name], short[name]): value for name, value in given.items()}


def _without_inner_wrappers(name: str) -> str:
    first, *others = name.split(".")
    return ".".join([first, *(part for part in others if part not in MAYBE_WRAPPER)])


def load_state(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads tensors by name into a net, as `net.load_state_dict` does.

    The tensors get the versions of the net's modules, which a file of tensors does not hold and
    without which some nets (torchvision's MNASNet) refuse them.
    """
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(net.state_dict(), "_metadata", None)
    net.load_state_dict(versioned)
