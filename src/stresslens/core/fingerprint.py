"""Fingerprints: short SHA-256 digests of plain values, and of a module with its weights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def fingerprint_of(values: Any) -> str:
    """16 hexadecimal digits of plain values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def module_digest(module: nn.Module) -> str:
    """12 hexadecimal digits of a module: its text form, and every parameter and buffer."""
    import torch

    digest = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(torch.uint8).numpy()
            if value.ndim
            else str(value.item()).encode()
        )
    return digest.hexdigest()[:12]
