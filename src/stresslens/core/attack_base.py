"""What every attack stands on: the model held still, the gradient at the input, who is still worth
attacking, the best so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Loss

MULTIPLE = 32
"""Batches are compacted to multiples of this, since every new shape costs the kernels a new plan."""
COMPACT_BELOW = 0.75
"""A batch is compacted when less than this share of it is still worth attacking."""
STACK = 256
"""Restarts and targets of the few images that are left are attacked together, up to so many rows."""
MOST_TARGETS = 9
"""Classes that a targeted attack drives each image at, one by one (AutoAttack's number)."""

PerImage = Callable[..., Tensor]
"""logits (N, K) and whatever labels → a loss for each image (N,), or its mean, which an attack raises."""
TargetRule = Literal["least_likely", "random"] | int | None


class Watch(Protocol):
    """Sees every iterate: `rows` (n,) places in the attacked batch, x_adv (n, C, H, W), logits (n,
    K), and where they were computed the loss (n,) and its gradient at x_adv. Returns (n,) True
    where the image is still worth attacking."""

    def __call__(
        self,
        rows: Tensor,
        x_adv: Tensor,
        logits: Tensor,
        loss: Tensor | None = None,
        grad: Tensor | None = None,
    ) -> Tensor: ...


def unwatched(
    rows: Tensor, x_adv: Tensor, logits: Tensor, loss: Tensor | None = None, grad: Tensor | None = None
) -> Tensor:
    """The watch of an attack that runs to its end."""
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


@contextmanager
def attacked(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, float32 that is no TF32, and no gradient for any parameter.

    Modes, requires_grad, buffers and torch's random state are as before afterwards, also after an
    exception; `seed` is what a random model draws from meanwhile.
    """
    modes = {module: module.training for module in model.modules()}
    asked = [p for p in model.parameters() if p.requires_grad]
    buffers = [(m, name, own, own.clone()) for m in modes for name, own in m.named_buffers(recurse=False)]
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    devices = list({p.device for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            model.eval()
            for parameter in asked:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            for parameter in asked:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for module, name, own, before in buffers:
                    module._buffers[name] = own.copy_(before)
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


class BatchedModel(nn.Module):
    """A model as a search sees it: in pieces of `batch` images, in a precision of its own, averaged
    over `passes` where it is random (expectation over transformation, Athalye et al. 2018). Images
    float in [0,1] in, logits of their type out."""

    def __init__(
        self,
        model: nn.Module,
        *,
        batch: int = 128,
        passes: int = 1,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.model, self.batch, self.passes, self.dtype, self.memory_format = (
            model,
            batch,
            passes,
            dtype,
            memory_format,
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = x.contiguous(memory_format=self.memory_format)
        logits: Tensor = self.model(seen if self.dtype is None else seen.to(self.dtype))
        return logits.to(x.dtype)


def batched_mean_logits(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K) logits without a graph; of a `BatchedModel` model in its pieces, averaged over its passes."""
    size, passes = _pieces(model, x)
    with torch.no_grad():
        parts = [torch.stack([model(part) for _ in range(passes)]).mean(0) for part in torch.split(x, size)]
    return torch.cat(parts)


def apart(first: Tensor, *others: Tensor) -> Tensor:
    """(N,) the largest difference of other answers (N, K) for the same images from the first, as a
    share of the range of each image's own logits; infinite where any is not finite."""
    span = (first.amax(1) - first.amin(1)).clamp_min(1e-12)
    far = torch.stack([(other - first).abs().amax(1) for other in others]).amax(0)
    return (far / span).nan_to_num(torch.inf, torch.inf)


def agrees_with_itself(model: nn.Module, x: Tensor, passes: int = 5) -> float:
    """The largest difference (`apart`) of at least two passes over the same images (N, C, H, W): 0,
    or about 1e-7 by rounding, for a model that is not random (AutoAttack's check for randomness).
    The model must be held still (`attacked`)."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    seen = BatchedModel(model, batch=MULTIPLE, dtype=dtype)
    return float(apart(*[batched_mean_logits(seen, x) for _ in range(passes)]).max())


def per_image(loss: Loss) -> PerImage:
    """A plug-in's loss as `gradient` calls it."""
    return lambda logits, y: loss(logits=logits, y=y)


def gradient(model: nn.Module, x: Tensor, loss: PerImage, *labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), loss (N,) and the gradient of each image's loss at the image (N, C, H, W), finite.

    `labels` (N, …) are handed to `loss` after the logits. Where the model passes no gradient on, it
    is zero. A loss that is a mean over the batch gives the same gradient, and the batch's mean for
    every image.
    """
    size, passes = _pieces(model, x)
    parts = [
        _gradient(model, x[i : i + size], loss, [y[i : i + size] for y in labels], passes)
        for i in range(0, max(1, len(x)), size)
    ]
    logits, values, grad = (torch.cat(column) for column in zip(*parts))
    return logits, values, grad


def _gradient(
    model: nn.Module, x: Tensor, loss: PerImage, labels: list[Tensor], passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    found = []
    for _ in range(passes):
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(point)
            value = loss(logits, *labels)
            total = value.sum() if value.ndim else value * len(x)
        grad = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
        finite = torch.zeros_like(x) if grad is None else grad.nan_to_num(0, 0, 0)
        found.append((logits.detach(), value.detach().expand(len(x)), finite))
    if passes == 1:
        return found[0]
    logits, value, grad = (torch.stack(each).mean(0) for each in zip(*found))
    return logits, value, grad


def _pieces(model: nn.Module, x: Tensor) -> tuple[int, int]:
    return (model.batch, model.passes) if isinstance(model, BatchedModel) else (max(1, len(x)), 1)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) how far the logit of y lies above the highest other one; negative where the image is
    taken for another class."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None]).squeeze(1) - others.amax(1)


def shortfall(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """(N,) what an attack lowers: the margin of y, or with a target how far that lies below the
    highest other logit, images that are still taken for y last."""
    if target is None:
        return margins(logits, y)
    return -margins(logits, target).double() + 1e6 * (logits.argmax(1) == y)


class Best:
    """The strongest iterate of each image: success first, then the lower `shortfall`. x (N, C, H,
    W), y (N,)."""

    def __init__(self, x: Tensor, y: Tensor, target: Tensor | None) -> None:
        self.x_adv, self.y, self.target = x.clone(), y, target
        self.lowest = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def update(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
        """`rows` may name an image several times (restarts side by side)."""
        short = shortfall(logits, self.y[rows], None if self.target is None else self.target[rows]).to(
            self.lowest.dtype
        )
        lowest = self.lowest.scatter_reduce(0, rows, short, "amin")
        better = (short < self.lowest[rows]) & (short == lowest[rows])
        self.x_adv[rows[better]] = x_adv[better]
        self.lowest = lowest


def narrowed(keep: Tensor) -> Tensor | None:
    """The places to go on with, once enough are decided: those kept, filled up with decided ones to
    a multiple of `MULTIPLE`.

    None while it is not worth it; empty when nothing is left.
    """
    left = int(keep.sum())
    if left == 0:
        return torch.arange(0, device=keep.device)
    if left >= COMPACT_BELOW * len(keep):
        return None
    wanted = min(len(keep), -(-left // MULTIPLE) * MULTIPLE)
    if wanted >= len(keep):
        return None
    kept_first: Tensor = torch.sort((~keep).to(torch.uint8), stable=True).indices
    return kept_first[:wanted].sort().values


def likely_others(logits: Tensor, y: Tensor, count: int | None = None) -> list[Tensor]:
    """The most likely classes besides y, best first, (N,) each: `count` of them, by default
    `MOST_TARGETS`, at most all."""
    others = min(MOST_TARGETS if count is None else count, logits.shape[1] - 1)
    return list(logits.scatter(1, y[:, None], -torch.inf).topk(others, 1).indices.unbind(1))


def targets_of(rule: TargetRule | Tensor, logits: Tensor, y: Tensor, draws: Draws) -> Tensor | None:
    """(N,) the class that each image is driven to, none of them its own; None for an untargeted attack.

    `least_likely` by the clean logits; `random` another than y; a class, or one for each image.
    Raises ConfigError.
    """
    classes = logits.shape[1]
    if rule is None:
        return None
    if rule == "least_likely":
        return logits.scatter(1, y[:, None], torch.inf).argmin(1)
    if rule == "random":
        return (y + 1 + draws.integers(classes - 1).to(y.device)) % classes
    if isinstance(rule, str):
        raise ConfigError(
            f"target {rule!r}: expected least_likely, random, a class number, or one for each image"
        )
    target: Any = torch.as_tensor(rule, device=y.device)
    if target.is_floating_point() or target.ndim > 1 or (target.ndim == 1 and len(target) != len(y)):
        raise ConfigError(
            f"target: expected a class number, or a whole number for each of the {len(y)} images"
        )
    driven: Tensor = target.long().expand(len(y))
    if len(y) and (int(driven.min()) < 0 or int(driven.max()) >= classes):
        raise ConfigError(
            f"target: the classes are 0 to {classes - 1}, got {int(driven.min())} to {int(driven.max())}"
        )
    return driven
