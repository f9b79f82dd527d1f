"""The gradients of a batch: their norms, whether they are finite, accumulation and clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError


class Gradients:
    """The gradients of these parameters, of which some may have none.

    With `late` the norms stay on the device: nothing here waits for a GPU.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, late: bool = False) -> None:
        self.parameters, self.late = parameters, late
        self.present: list[Tensor] = []
        self.norms: list[float] = []
        self.device_norms: Tensor | None = None
        """(gradients,) of the last batch, with `late`."""

    def measure(self) -> None:
        """Finds the gradients, and the norm of each. Raises ConfigError where there is none."""
        self.present = [gradient for p in self.parameters if (gradient := p.grad) is not None]
        if not self.present:
            raise ConfigError(
                "the loss has no gradient: it was computed under torch.no_grad() or not from the logits"
            )
        norms = torch._foreach_norm(self.present)
        if self.late:
            self.device_norms = torch.stack(norms)
        else:
            on_gpu = norms[0].is_cuda
            self.norms = torch.stack(norms).tolist() if on_gpu else [norm.item() for norm in norms]

    @property
    def finite(self) -> bool:
        return math.isfinite(sum(self.norms))

    def accumulate(self, sizes: Sequence[int], following: int | None) -> None:
        """Weights the sum of the gradients of batches of these sizes, the last of them the current one, for
        the batch that follows, or, at the end of a group, makes it the mean over their images."""
        if following is not None and following < sizes[-1]:
            self.multiply(sizes[-1] / following)
        if following is None and len(sizes) > 1:
            self.divide(sum(sizes) / sizes[-1])  # in units of the last batch, as the gradients are

    def multiply(self, by: float) -> None:
        torch._foreach_mul_(self.present, by)

    def divide(self, by: float) -> None:
        """Divides the gradients, and their norms."""
        torch._foreach_div_(self.present, by)
        self.norms_divided(by)

    def norms_divided(self, by: float) -> None:
        """Divides the norms alone: the gradients are divided already."""
        if by == 1:
            return
        if self.device_norms is not None:
            self.device_norms = self.device_norms / by
        else:
            self.norms = [norm / by for norm in self.norms]

    def clip(self, most: float | None) -> None:
        """Shortens the whole gradient to this norm, where it is longer; not at all for None."""
        if most is None:
            return
        if self.device_norms is not None:
            whole = torch.linalg.vector_norm(self.device_norms)
            torch._foreach_mul_(self.present, (most / whole).clamp(max=1.0))
        elif (norm := math.hypot(*self.norms)) > most:
            self.multiply(most / norm)

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
