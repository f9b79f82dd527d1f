"""Base of all attacks: frozen model, input gradient, best iterate, targets, batch compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from stresslens.core.answers import answered, predicted
from stresslens.core.draws import Draws
from stresslens.core.dtypes import image_dtype
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_free import require_gradient
from stresslens.core.inspection import on_fresh_images, to_evaluation_mode
from stresslens.core.pass_memory import images_at_once
from stresslens.core.pieces import in_pieces
from stresslens.core.types import Loss

MULTIPLE = 32
"""Batches are compacted to multiples of this, because kernels are planned anew for each shape."""
COMPACT_BELOW = 0.75
"""A batch is compacted when less than this share of its images is still attacked."""
STACK = 256
"""When few images are left, their restarts and targets are attacked together, up to so many
rows."""
MOST_TARGETS = 9
"""A targeted attack drives each image at this many classes, one by one (AutoAttack's number)."""

MASKED, ROUNDING, LOW = 100.0, 0.05, 0.1
"""Logits count as masked if they are lower than the others by so many ranges of these. A range is
at least this share of the size of the logits in an image of this quantile, so that rounding is
small in it."""

PerImage = Callable[..., Tensor]
"""logits (N, K), labels, … → the loss (N,) that an attack maximises, or its mean over the batch."""
TargetRule = Literal["least_likely", "random"] | int | None


class Watch(Protocol):
    """A callback that an attack calls with every iterate.

    `rows` (n,) are positions in the attacked batch, x_adv is (n, C, H, W), logits (n, K). `loss`
    (n,) and its gradient `grad` at x_adv are given if the attack computed them. It returns (n,)
    True where the attack on the image should go on.
    """

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
    """A callback that never stops an attack."""
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


@contextmanager
def attacked(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Freezes the model: evaluation mode, float32 without TF32, no gradients of parameters, and
    copies of the images (`fresh_images`), which a model that works in place may overwrite.

    Afterwards modes, requires_grad, buffers and torch's random state are restored, also after an
    exception. `seed` seeds torch meanwhile, for models that are random.
    """
    modes = {module: module.training for module in model.modules()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    buffers = [
        (m, name, buffer, buffer.clone()) for m in modes for name, buffer in m.named_buffers(recurse=False)
    ]
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    devices = list({p.device for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            to_evaluation_mode(model)
            for parameter in trainable:
                parameter.requires_grad_(False)
            with on_fresh_images(model):
                yield
        finally:
            for module, training in modes.items():
                module.training = training
            for parameter in trainable:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    module._buffers[name] = buffer.copy_(before)
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


class BatchedModel(nn.Module):
    """A model with a batch size and a precision for attacks: images in [0,1] → logits of their
    dtype.

    The images are cast to the dtype in which the model takes them (`image_dtype`).

    The functions below pass images through it in pieces of `batch`, or of as many images as the memory
    of a pass allows (`images_at_once`). Of a random model they average
    logits and gradients over `passes` forward passes (expectation over transformation, Athalye et
    al. 2018).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch: int = 128,
        passes: int = 1,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.model, self.batch, self.passes, self.memory_format = model, batch, passes, memory_format
        self._dtypes: dict[tuple[Any, ...], torch.dtype] = {}

    def forward(self, x: Tensor) -> Tensor:
        images = x.contiguous(memory_format=self.memory_format)
        key = (x.shape[1:], x.dtype)
        if key not in self._dtypes:
            self._dtypes[key] = image_dtype(self.model, *key)
        dtype = self._dtypes[key]
        if dtype != torch.float16:
            return self.model(images.to(dtype)).to(x.dtype)  # type: ignore[no-any-return]
        scales: list[Tensor] = []
        images = _Rescaled.apply(images, scales).to(dtype)  # type: ignore[no-untyped-call]
        return _Scaled.apply(self.model(images).to(x.dtype), scales)  # type: ignore[no-any-return, no-untyped-call]


class _Scaled(torch.autograd.Function):
    """The identity on logits (N, K). Its gradient is divided by each image's largest entry, so that
    it does not underflow on its way back through float16; `_Rescaled` multiplies it again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, scales: list[Tensor]) -> Tensor:
        ctx.scales = scales
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        largest = grad.abs().amax(1, keepdim=True)
        scale = torch.where(largest > 0, largest, 1)
        ctx.scales[:] = [scale]
        return grad / scale, None


class _Rescaled(torch.autograd.Function):
    """The identity on images (N, C, H, W); see `_Scaled`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[Tensor]) -> Tensor:
        ctx.scales = scales
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scales[0][:, :, None, None], None


def batched_mean_logits(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K) logits without a graph; a `BatchedModel` is run in pieces and averaged over its
    passes."""
    size, passes = _pieces(model, x, gradient=False)
    with torch.no_grad():
        parts = in_pieces(
            lambda rows: torch.stack([model(x[rows]) for _ in range(passes)]).mean(0), len(x), size
        )
    return torch.cat(parts)


def apart(first: Tensor, *others: Tensor) -> Tensor:
    """(N,) the largest difference of other logits (N, K) of the same images from the first logits.

    It is relative to the range of each image's first logits. The range is that of the classes that
    compete: a class that is masked by a large negative number says nothing of the others, and its
    own logit is compared with its size. Infinite if one answers (`core.answers`) and another does
    not, 0 if none answers.
    """
    known = answered(first)
    base = torch.where(known[:, None], first, 0).double()
    scale = torch.maximum(_competing_range(base)[:, None], ROUNDING * base.abs())
    worst = torch.zeros_like(base[:, 0])
    for other in others:
        difference = torch.where(first == other, 0, (other.double() - base).abs() / scale).amax(1)
        both = known & answered(other)
        worst = torch.maximum(worst, torch.where(both, difference.nan_to_num(torch.inf, torch.inf), 0))
        worst[known != answered(other)] = torch.inf
    return worst.to(first.dtype)


def _competing_range(logits: Tensor) -> Tensor:
    """(N,) the range of the logits (N, K) of each image, without the lowest ones that are farther
    from the others than `MASKED` ranges of these.

    It is at least the share `ROUNDING` of the size of the two highest logits (of the quantile `LOW`
    of all images), so that the rounding of two nearly equal logits is not large in it.
    """
    ordered = logits.sort(1, descending=True).values
    size = ordered[:, :2].nan_to_num(0, 0, 0).abs().amax(1)
    least = max(ROUNDING * float(size.quantile(LOW)), 1e-12)
    ranges = (ordered[:, :1] - ordered[:, 1:]).clamp_min(least)  # of the two highest, the three highest, …
    gaps = ordered[:, 1:-1] - ordered[:, 2:]
    ends = torch.cat([gaps > MASKED * ranges[:, :-1], torch.ones_like(logits[:, :1]).bool()], 1)
    return ranges.gather(1, ends.to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)


def agrees_with_itself(model: nn.Module, x: Tensor, passes: int = 5) -> float:
    """The largest difference (`apart`) between passes over the same images (N, C, H, W).

    It is 0, or about 1e-7 by rounding, if the model is not random (AutoAttack's check for
    randomness). At least two `passes` are needed, and the model must be frozen (`attacked`).
    """
    batched = BatchedModel(model, batch=MULTIPLE)
    return float(apart(*[batched_mean_logits(batched, x) for _ in range(passes)]).max())


def per_image(loss: Loss) -> PerImage:
    """A plug-in's loss as `gradient` calls it."""
    return lambda logits, y: loss(logits=logits, y=y)


def gradient(model: nn.Module, x: Tensor, loss: PerImage, *labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, K), loss (N,), and the gradient (N, C, H, W) of each image's loss at the image.

    `loss` is called with the logits and `labels` (N, …). The gradient is finite: it is zero where
    the model passes none back or where it is not finite. If the loss is a mean over the batch, it
    is that of the mean, and the returned loss is the mean for every image. Raises NoGradient for a
    model that says that it has none.
    """
    require_gradient(model)
    size, passes = _pieces(model, x, gradient=True)
    parts = in_pieces(
        lambda rows: _gradient(model, x[rows], loss, [y[rows] for y in labels], passes), len(x), size
    )
    logits, values, grad = (torch.cat(column) for column in zip(*parts))
    return logits, values, grad


def _gradient(
    model: nn.Module, x: Tensor, loss: PerImage, labels: list[Tensor], passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    results = []
    for _ in range(passes):
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(point)
            value = loss(logits, *labels)
            total = value.sum() if value.ndim else value * len(x)
        grad = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
        finite = torch.zeros_like(x) if grad is None else grad.nan_to_num(0, 0, 0)
        results.append((logits.detach(), value.detach().expand(len(x)), finite))
    if passes == 1:
        return results[0]
    logits, value, grad = (torch.stack(values).mean(0) for values in zip(*results))
    return logits, value, grad


def _pieces(model: nn.Module, x: Tensor, *, gradient: bool) -> tuple[int, int]:
    if not isinstance(model, BatchedModel):
        return max(1, len(x)), 1
    size = images_at_once(model.model, x.shape[1:], min(model.batch, max(1, len(x))), gradient=gradient)
    return size, model.passes


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) the logit of y minus the highest other logit; negative where the image is
    misclassified."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None]).squeeze(1) - others.amax(1)


def shortfall(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """(N,) the quantity that an attack minimises.

    Untargeted, it is the margin of y, and -infinity without an answer (`core.answers`). With a
    target, it is the highest other logit minus that of the target, plus 1e6 for images that are
    still classified as y; without an answer it is 1e6, which is not the target.
    """
    if target is None:
        return torch.where(answered(logits), margins(logits, y), -torch.inf)
    short = -margins(logits, target).double() + 1e6 * (predicted(logits) == y)
    return torch.where(answered(logits), short, 1e6)


class Best:
    """The best iterate of each image so far: the one with the lowest `shortfall`.

    x is (N, C, H, W), y (N,).
    """

    def __init__(self, x: Tensor, y: Tensor, target: Tensor | None) -> None:
        self.x_adv, self.y, self.target = x.clone(), y, target
        self.lowest = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def update(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
        """Takes iterates of the images `rows`; an image may occur several times (restarts)."""
        short = shortfall(logits, self.y[rows], None if self.target is None else self.target[rows]).to(
            self.lowest.dtype
        )
        if not bool(answered(logits).all()):  # of an image that is NaN itself, no answer says nothing
            short[~x_adv.flatten(1).isfinite().all(1)] = torch.inf
        lowest = self.lowest.scatter_reduce(0, rows, short, "amin")
        better = (short < self.lowest[rows]) & (short == lowest[rows])
        self.x_adv[rows[better]] = x_adv[better]
        self.lowest = lowest


def narrowed(keep: Tensor) -> Tensor | None:
    """The rows of a compacted batch: those of `keep` (N,), filled up with others to `MULTIPLE`.

    None if compaction does not pay yet; empty if `keep` is all False.
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
    """The most likely classes besides y, (N,) each, the most likely first.

    `count` classes are returned, by default `MOST_TARGETS`, and at most all others.
    """
    others = min(MOST_TARGETS if count is None else count, logits.shape[1] - 1)
    return list(logits.scatter(1, y[:, None], -torch.inf).topk(others, 1).indices.unbind(1))


def targets_of(rule: TargetRule | str | Tensor, logits: Tensor, y: Tensor, draws: Draws) -> Tensor | None:
    """(N,) the target class of each image, or None for an untargeted attack.

    `rule` is `least_likely` (by the clean logits, without classes that are masked with -inf),
    `random` (any class but y), a class, or one class for each image. Raises ConfigError for any other rule.
    """
    classes = logits.shape[1]
    if rule is None:
        return None
    if rule == "least_likely":
        possible = logits.masked_fill(logits.isneginf(), torch.inf)  # no attack reaches a masked class
        return possible.scatter(1, y[:, None], torch.inf).argmin(1)
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
    targets: Tensor = target.long().expand(len(y))
    if len(y) and (int(targets.min()) < 0 or int(targets.max()) >= classes):
        raise ConfigError(
            f"target: the classes are 0 to {classes - 1}, got {int(targets.min())} to {int(targets.max())}"
        )
    return targets
