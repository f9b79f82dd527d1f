"""What an explainer returns: for each image a map over its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stresslens.core.errors import ConfigError


@dataclass(frozen=True)
class Maps:
    """A number for every pixel of every image: values (N, H, W), float32. `signed` where what lies
    below 0 speaks against the class and 0 means nothing; else 0 is the least. `unit` says what the
    numbers are; `notes` what a reader of the maps must know."""

    values: Tensor
    signed: bool
    unit: str
    notes: tuple[str, ...] = ()

    def checked(self, x: Tensor, name: str) -> Maps:
        """Itself. Raises ConfigError unless there is one finite map of the right size for each of
        the images x (N, C, H, W)."""
        expected = (len(x), *x.shape[2:])
        if not isinstance(self.values, Tensor) or tuple(self.values.shape) != expected:
            got = tuple(self.values.shape) if isinstance(self.values, Tensor) else type(self.values).__name__
            raise ConfigError(
                f"explainer {name} returned maps of shape {got}; expected {expected} (images, height, width)"
            )
        if not bool(self.values.isfinite().all()):
            raise ConfigError(f"explainer {name} returned NaN or infinity")
        return self


def spans(starts: Tensor, size: int | Tensor, side: int) -> Tensor:
    """(P, side) which rows, or columns, lie within windows of these starts (P,) and of this size,
    or one for each (P,)."""
    place = torch.arange(side, device=starts.device)
    return (place >= starts[:, None]) & (place < (starts + size)[:, None])
