"""Weights files: the tensors of a safetensors file, or of a state dict that torch saved."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from stresslens.core.errors import DataError, first_line

REFETCH = "if it is incomplete or damaged, download it again"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a state dict that torch saved.

    No code of the file is executed. A state dict inside a checkpoint ("state_dict" or "model") is
    found, and prefixes of wrappers are removed. Raises DataError if the file is missing or
    incomplete, holds objects besides tensors, or holds no tensors.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(2)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        if not start.startswith((b"PK", b"\x80")):
            raise ValueError("it is not a file of torch; a safetensors file ends in .safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about pickles of other versions
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
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path} holds no state dict (tensors by name)")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def load_state(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads tensors by name into a net, as `net.load_state_dict` does.

    The tensors get the versions of the net's modules, which a file of tensors does not hold and
    without which some nets (torchvision's MNASNet) refuse them.
    """
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(net.state_dict(), "_metadata", None)
    net.load_state_dict(versioned)
