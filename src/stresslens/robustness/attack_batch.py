"""A batch of images while attacks go on: who is broken, by which image, and what the attacks showed
on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config.registry import Bound, answer_beside
from stresslens.core.attack_base import MULTIPLE, BatchedModel
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import Trace

LAST, FLAT, LEAST = 10, 0.05, 20
"""The last iterates of an attack, the share of its path that the loss may rise in them, and the
iterates that this takes."""

VerdictModel = Callable[[Tensor], Tensor]
"""Images (n, C, H, W) in float32 → logits (n, K), in the settings of an evaluation."""


class AttackBatch:
    """x (N, C, H, W) float32 in [0, 1], y (N,). An image counts as broken once a float32 forward
    pass over the very tensor that is kept, which lies in ball and box, answers anything but y (with
    `success="target"`: the target)."""

    def __init__(
        self,
        float32_logits: VerdictModel,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        *,
        target: Tensor | None = None,
        targeted_success: bool = False,
        drop: bool = True,
    ) -> None:
        """`aimed`: only the target counts as success. Without `drop` every attack runs to its end."""
        self.float32_logits, self.x, self.y, self.ball, self.target, self.targeted_success, self.drop = (
            float32_logits,
            x,
            y,
            ball,
            target,
            targeted_success,
            drop,
        )
        self.is_adversarial = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.x_adv = x.clone()
        self.logits: Tensor | None = None
        """(N, K) the verdict on each image that broke its original."""
        self.steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        """Iterates that were seen of an image up to the one that broke it, over all attacks."""

    def fooled(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(n,) whether these logits are what the attack is after; not finite ones are not."""
        finite = torch.isfinite(logits).all(1)
        guess = logits.argmax(1)
        if self.targeted_success and self.target is not None:
            return finite & (guess == self.target[rows])
        return finite & (guess != self.y[rows])

    def check(self, rows: Tensor, x_adv: Tensor) -> Tensor:
        """(n,) whether each candidate holds in float32, inside ball and box; the first that does is
        kept as the adversarial."""
        held = self.ball.select(rows).holds(x_adv, self.x[rows])
        inside = (
            held.nonzero().flatten()
        )  # only these are worth a pass: attacks of smallest perturbation come from outside
        if len(inside):
            logits = batched_logits(self.float32_logits, x_adv[inside])
            held[inside] = self.fooled(logits, rows[inside])
            self._keep(rows[inside], x_adv[inside], logits, held[inside])
        return held

    def _keep(self, rows: Tensor, x_adv: Tensor, logits: Tensor, held: Tensor) -> None:
        fresh = held & ~self.is_adversarial[rows]
        if self.logits is None:
            self.logits = torch.zeros(len(self.x), logits.shape[1], dtype=logits.dtype, device=logits.device)
        self.x_adv[rows[fresh]], self.logits[rows[fresh]] = x_adv[fresh].to(self.x_adv.dtype), logits[fresh]
        self.is_adversarial[rows[fresh]] = True

    def attempt(
        self,
        attack: Bound,
        model: nn.Module,
        draws: Draws,
        *,
        name: str,
        start: Tensor | None = None,
        surrogate: nn.Module | None = None,
    ) -> tuple[Trace, Tensor]:
        """One attack on the images that are not broken yet; `model` is what it sees, `draws` belong
        to all N images.

        Returns what it showed, and (N, C, H, W) its images as it returned them, those of the rest
        as they were.
        """
        rows = (~self.is_adversarial).nonzero().flatten()
        trace = Trace(
            name,
            _plain(attack),
            float(torch.as_tensor(self.ball.select(rows).eps).max()) if len(rows) else 0.0,
            len(rows),
            passes=model.passes if isinstance(model, BatchedModel) else 1,
            may_be_flat=answer_beside(attack, "may_be_flat"),
        )
        returned = self.x_adv.clone()
        if not len(rows):
            return trace, returned
        began = time.perf_counter()
        watch = _Watch(self, rows, trace)
        x, y = self.x[rows], self.y[rows]
        target = None if self.target is None else self.target[rows]
        with watch.listening(model) if not attack.asks_for("watch") else nullcontext():
            result = attack(
                model=model,
                x=x,
                y=y,
                ball=self.ball.select(rows),
                draws=draws.select(rows),
                watch=watch,
                target=target,
                start=None if start is None else start[rows],
                surrogate=surrogate,
            )
        if not isinstance(result, Tensor) or result.shape != x.shape:
            got = (
                f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            )
            raise ConfigError(f"the attack {name} returned {got}; expected images of shape {tuple(x.shape)}")
        result = result.detach().to(x.dtype)
        x = self.x[rows]  # an attack may have written into what it was given
        around = self.ball.select(rows)
        inside = around.holds(result, x)
        trace.outside = int((~inside).sum())
        size, radius = around.size(result - x), around.radius(x).flatten()
        share = torch.where(size == 0, 0, size / radius)  # of a radius of 0, infinite
        trace.excess = float(share.nan_to_num(torch.inf, torch.inf).max())
        on_the_way = self.is_adversarial[rows].clone()
        final = torch.ones_like(on_the_way) if not self.drop or not attack.asks_for("watch") else ~on_the_way
        logits = batched_logits(
            self.float32_logits, result[final]
        )  # whoever was dropped on the way has had his verdict
        held = self.fooled(logits, rows[final]) & inside[final]
        self._keep(rows[final], result[final], logits, held)
        trace.silent = int((on_the_way[final] & ~held).sum())
        trace.broke = int(self.is_adversarial[rows].sum())
        trace.zero_at_start, trace.zero_on_path = (int(n) for n in watch.flat_at.sum(1))
        left = ~self.is_adversarial[rows]
        self.steps[rows[left]] += watch.seen[left]
        trace.rising, trace.followed = watch.rising(left)
        trace.seconds = time.perf_counter() - began
        returned[rows] = result
        return trace, returned


class _Watch:
    """One attack's view of a search: its rows are places among those that were not broken when it began."""

    def __init__(self, search: AttackBatch, rows: Tensor, trace: Trace) -> None:
        self.search, self.rows, self.trace = search, rows, trace
        self.seen = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        self.flat_at = torch.zeros(2, len(rows), dtype=torch.bool, device=rows.device)
        """Whose gradient was exactly zero at the first iterate; at a later one."""
        self.first = True
        self.losses: list[tuple[Tensor, Tensor]] = []
        """Places and what the attack raises of each image; not where it tells only the mean over a batch."""
        self.mean: bool | None = None
        """Whether its loss is told as one figure for many images; settled by the first iterate."""

    def __call__(
        self,
        rows: Tensor,
        x_adv: Tensor,
        logits: Tensor,
        loss: Tensor | None = None,
        grad: Tensor | None = None,
    ) -> Tensor:
        search, own, trace = self.search, self.rows[rows], self.trace
        trace.forwards += len(rows)
        self.seen.scatter_add_(0, rows, torch.ones_like(rows))
        if grad is not None:
            trace.gradients += len(rows)
            flat = ~grad.flatten(1).any(1) & ~search.is_adversarial[own]
            self.flat_at[0 if self.first else 1, rows[flat]] = True
            self.first = False
        if loss is not None:
            if self.mean is None:
                self.mean = len(loss) > 1 and bool((loss[1:] == loss[:-1]).double().mean() > 0.5)
            if not self.mean:
                self.losses.append((rows, loss))
        candidates = (search.fooled(logits, own) & ~search.is_adversarial[own]).nonzero().flatten()
        if len(candidates):
            held = candidates[search.check(own[candidates], x_adv[candidates])]
            search.steps[own[held]] += self.seen[rows[held]]
        return ~search.is_adversarial[own] if search.drop else torch.ones_like(rows, dtype=torch.bool)

    def rising(self, left: Tensor) -> tuple[int, int]:
        """Of how many images that were never broken (`left`, (n,) bool) the loss still rose at the
        end, and how many these are.

        Of each the best loss so far (one above 0 by its logarithm), scaled to [0, 1] over its path,
        rises in the last `LAST` iterates (of fewer than fifty, in a fifth) by more than `FLAT`
        (Pintor et al. 2022, indicator 4). Nothing is said of fewer than `LEAST` iterates.
        """
        if len(self.losses) < LEAST or not bool(left.any()):
            return 0, 0
        best = torch.full_like(left, -torch.inf, dtype=torch.float64)
        path = []
        for rows, loss in self.losses:
            best = best.scatter_reduce(0, rows, loss.double(), "amax")
            path.append(best[left])
        course = torch.stack(path)
        course = course[:, torch.isfinite(course).all(0)]
        if bool((course > 0).all()):
            course = (
                course.log()
            )  # while an image is right, cross-entropy falls exponentially with its margin
        first, final = course[0], course[-1]
        late = (final - course[-min(LAST, len(course) // 5) - 1]) / (final - first).clamp_min(1e-12)
        return int(((late > FLAT) & (final > first + 1e-6)).sum()), course.shape[1]

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """For an attack that shows nothing: every batch of all its images that it passes through
        the model is an iterate."""

        def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and len(inputs[0]) == len(self.rows):
                everything = torch.arange(len(self.rows), device=self.rows.device)
                with torch.no_grad():
                    self(everything, inputs[0].detach().float(), output.detach())

        handle = model.register_forward_hook(see)
        try:
            yield
        finally:
            handle.remove()


def _plain(attack: Bound) -> dict[str, Any]:
    """Its options, also those left at their defaults; plug-ins among them by their names."""
    return {
        key: value.function.__name__ if isinstance(value, Bound) else value
        for key, value in attack.all_options.items()
    }


def batched_logits(float32_logits: VerdictModel, x: Tensor) -> Tensor:
    """(n, K) logits, the batch filled up to a multiple of `MULTIPLE` so that few shapes are met."""
    n = len(x)
    short = -n % MULTIPLE
    if not short:
        return float32_logits(x) if n else float32_logits(x.new_zeros(1, *x.shape[1:]))[:0]
    return float32_logits(torch.cat([x, x[:1].expand(short, *x.shape[1:])]))[:n]


def verdict_model(model: nn.Module, *, passes: int = 1, batch: int = 256, seed: int = 0) -> VerdictModel:
    """The verdict of a model held still (`attacked`), in its own precision; the mean over `passes`
    where it is random."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))

    def float32_logits(x: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[x.device] if x.is_cuda else [], enabled=passes > 1),
        ):
            if passes > 1:
                torch.manual_seed(seed)
            parts = torch.split(x.to(first.dtype), batch)
            means = [torch.stack([model(part) for _ in range(passes)]).mean(0) for part in parts]
        return torch.cat(means).to(x.dtype)

    return float32_logits
