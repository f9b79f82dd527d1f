"""Attribution maps (saliency maps): the result of an explainer, one map over the pixels per
image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stresslens.core.errors import ConfigError


@dataclass(frozen=True)
class Maps:
    """One attribution value for every pixel of every image."""

    values: Tensor
    """(N, H, W), float32."""
    signed: bool
    """If True, negative values are evidence against the class, and 0 is neutral. If False, 0 is the
    least value."""
    unit: str
    """What the values mean."""
    notes: tuple[str, ...] = ()
    """What a reader of the maps must know."""

    def checked(self, x: Tensor, name: str) -> Maps:
        """Returns itself, without a graph, if there is one finite map of the right size for each of
        the images x.

        x is (N, C, H, W), `name` that of the explainer. Raises ConfigError otherwise.
        """
        expected = (len(x), *x.shape[2:])
        if not isinstance(self.values, Tensor) or tuple(self.values.shape) != expected:
            got = tuple(self.values.shape) if isinstance(self.values, Tensor) else type(self.values).__name__
            raise ConfigError(
                f"explainer {name} returned maps of shape {got}; expected {expected} (images, height, width)"
            )
        if not bool(self.values.isfinite().all()):
            raise ConfigError(f"explainer {name} returned NaN or infinity")
        return replace(self, values=self.values.detach()) if self.values.requires_grad else self


def spans(starts: Tensor, size: int | Tensor, side: int) -> Tensor:
    """(P, side) which of `side` rows, or columns, are inside each of P windows.

    The windows begin at `starts` (P,) and have one size, or (P,) one for each.
    """
    position = torch.arange(side, device=starts.device)
    return (position >= starts[:, None]) & (position < (starts + size)[:, None])
