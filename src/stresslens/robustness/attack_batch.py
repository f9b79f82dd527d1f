"""Attack batch: the images under attack, the adversarial images found so far, and the trace of each
attack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.core.answers import answered, predicted
from stresslens.core.attack_base import MULTIPLE, BatchedModel
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.dtypes import image_dtype
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import UNTOUCHED, Trace, groups
from stresslens.core.pass_memory import images_at_once
from stresslens.core.pieces import in_pieces
from stresslens.robustness.query_curves import QueryLog, query_marks

LAST, FLAT, LEAST = 10, 0.05, 20
"""How `_Watch.rising` decides that a loss still rises: it looks at the last `LAST` iterates, where
the best loss may rise by the share `FLAT` of its range over all iterates. It needs at least `LEAST`
iterates."""

LEAST_FALL = 1e-3
"""Log-odds that fall by less than this, or this share of them, may have fallen by rounding."""

VerdictModel = Callable[[Tensor], Tensor]
"""Images (n, C, H, W) in float32 → logits (n, K), computed as in an evaluation."""


class AttackBatch:
    """Images x (N, C, H, W) float32 in [0, 1] with labels y (N,), and their adversarial images.

    The criterion: an image is broken once the batch holds an adversarial image for it that is
    inside ball and box and that the model, in a float32 forward pass over this very tensor,
    misclassifies (with `targeted_success`: classifies as the target).
    """

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
        """With `targeted_success`, only a prediction of `target` (N,) counts as success. Without
        `drop`, attacks also go on with images that they have broken."""
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
        """(N, K) float32 logits of the adversarial images; None before the first forward pass."""
        self.steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        """(N,) iterates of each image up to the one that broke it, summed over all attacks."""
        self.query_sizes = torch.zeros(len(x), 0, device=x.device)
        """(N, marks) `QueryLog.sizes` of the last attack."""

    def fooled(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(n,) whether the logits (n, K) of the images `rows` meet the criterion. No answer
        (`core.answers`) is a wrong answer, but not the target."""
        if self.targeted_success and self.target is not None:
            return predicted(logits) == self.target[rows]
        return predicted(logits) != self.y[rows]

    def check(self, rows: Tensor, x_adv: Tensor) -> Tensor:
        """(n,) whether each candidate image meets the criterion. The batch keeps the first one of
        each image."""
        success = self.ball.select(rows).holds(x_adv, self.x[rows])
        # attacks that minimise the perturbation come from outside: those need no forward pass
        inside = success.nonzero().flatten()
        if len(inside):
            logits = batched_logits(self.float32_logits, x_adv[inside])
            success[inside] = self.fooled(logits, rows[inside])
            self._keep(rows[inside], x_adv[inside], logits, success[inside])
        return success

    def _keep(self, rows: Tensor, x_adv: Tensor, logits: Tensor, success: Tensor) -> None:
        fresh = success & ~self.is_adversarial[rows]
        if self.logits is None:
            self.logits = torch.zeros(len(self.x), logits.shape[1], dtype=logits.dtype, device=logits.device)
        self.x_adv[rows[fresh]], self.logits[rows[fresh]] = x_adv[fresh].to(self.x_adv.dtype), logits[fresh]
        self.is_adversarial[rows[fresh]] = True

    def attack_unbroken(
        self,
        attack: Bound,
        model: nn.Module,
        draws: Draws,
        *,
        name: str,
        start: Tensor | None = None,
        surrogate: nn.Module | None = None,
    ) -> tuple[Trace, Tensor]:
        """Runs one attack on the images that are not broken yet.

        The attack sees `model`; `draws` and `start` (N, C, H, W) have an entry for each of the N
        images. Returns the trace, and (N, C, H, W) the images that the attack returned; an image
        that was broken before keeps its adversarial image. Raises ConfigError if the attack returns
        anything but images of that shape.
        """
        rows = (~self.is_adversarial).nonzero().flatten()
        trace = Trace(
            name,
            _plain_options(attack),
            float(torch.as_tensor(self.ball.select(rows).eps).max()) if len(rows) else 0.0,
            len(rows),
            passes=model.passes if isinstance(model, BatchedModel) else 1,
            may_be_flat=attack.answer_beside("may_be_flat"),
        )
        returned = self.x_adv.clone()
        if not len(rows):
            return trace, returned
        began = time.perf_counter()
        watch = _Watch(self, rows, trace, query_marks(attack))
        start = None if start is None else start[rows]
        result = self._call_attack(attack, model, draws.select(rows), watch, name, start, surrogate)
        self._check_returned(
            result, rows, trace, watch.moved, check_all=not (self.drop and attack.asks_for("watch"))
        )
        self.query_sizes = watch.queries.sizes(len(self.x), rows)
        trace.broke_within = watch.queries.counts(self.ball.radius(self.x).flatten()[rows])
        trace.zero_at_start, trace.zero_on_path = (int(n) for n in watch.zero_gradient.sum(1))
        left = ~self.is_adversarial[rows]
        self.steps[rows[left]] += watch.seen[left]
        trace.rising, trace.followed = watch.rising(left)
        trace.backwards, trace.judged = watch.backwards(left, result)
        trace.seconds = time.perf_counter() - began
        returned[rows] = result
        return trace, returned

    def _call_attack(
        self,
        attack: Bound,
        model: nn.Module,
        draws: Draws,
        watch: _Watch,
        name: str,
        start: Tensor | None,
        surrogate: nn.Module | None,
    ) -> Tensor:
        """The images (n, C, H, W) that the attack returns for the rows of `watch`."""
        rows = watch.rows
        x, y = self.x[rows], self.y[rows]
        target = None if self.target is None else self.target[rows]
        watch.targeted = target is not None and attack.asks_for("target")
        with watch.listening(model) if not attack.asks_for("watch") else nullcontext():
            result = attack(
                model=model,
                x=x,
                y=y,
                ball=self.ball.select(rows),
                draws=draws,
                watch=watch,
                target=target,
                start=start,
                surrogate=surrogate,
            )
        if not isinstance(result, Tensor) or result.shape != x.shape:
            got = (
                f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            )
            raise ConfigError(f"the attack {name} returned {got}; expected images of shape {tuple(x.shape)}")
        return result.detach().to(x.dtype)

    def _check_returned(
        self, result: Tensor, rows: Tensor, trace: Trace, moved: Tensor, *, check_all: bool
    ) -> None:
        """Checks the returned images (n, C, H, W) of `rows` against the criterion, and records in
        the trace what is wrong with them. Without `check_all`, images that the attack dropped
        because an iterate broke them are not passed through the model again. `moved` (n,) are images
        of which the attack tried another iterate."""
        x = self.x[rows]  # a fresh copy: an attack may have written into its x
        ball = self.ball.select(rows)
        inside = ball.holds(result, x)
        trace.outside = int((~inside).sum())
        size, radius = ball.size(result - x), ball.radius(x).flatten()
        share = torch.where(size == 0, 0, size / radius)  # infinite for a radius of 0
        trace.excess = float(share.nan_to_num(torch.inf, torch.inf).max())
        by_iterate = self.is_adversarial[rows].clone()
        checked = torch.ones_like(by_iterate) if check_all else ~by_iterate
        logits = batched_logits(self.float32_logits, result[checked])
        success = self.fooled(logits, rows[checked]) & inside[checked]
        self._keep(rows[checked], result[checked], logits, success)
        trace.silent = int((by_iterate[checked] & ~success).sum())
        trace.broke = int(self.is_adversarial[rows].sum())
        self._count_untouched(rows, (share <= UNTOUCHED) & (radius > 0) & ~moved, trace)
        if self.logits is not None:
            trace.no_answer = int((self.is_adversarial[rows] & ~answered(self.logits[rows])).sum())

    def _count_untouched(self, rows: Tensor, unmoved: Tensor, trace: Trace) -> None:
        """Records in the trace which unbroken images of `rows` (n,) came back `unmoved` (n,)."""
        unbroken = ~self.is_adversarial[rows]
        untouched = (unmoved & unbroken).cpu().numpy()
        trace.untouched = int(untouched.sum())
        if trace.untouched:
            left, places = unbroken.cpu().numpy(), np.arange(len(rows))
            trace.untouched_in = {
                name: (int(untouched[group].sum()), int(left[group].sum()))
                for name, group in groups(self.y[rows].cpu().numpy(), places, len(rows)).items()
            }


class _Watch:
    """The `watch` callback of one attack (`core.attack_base.Watch`). Its n rows are positions among
    the images that were not broken when the attack began."""

    def __init__(self, batch: AttackBatch, rows: Tensor, trace: Trace, marks: Sequence[int] = ()) -> None:
        self.batch, self.rows, self.trace = batch, rows, trace
        self.queries = QueryLog(marks, len(rows), rows.device)
        self.seen = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        """(n,) iterates of each image so far."""
        self.moved = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        """(n,) whether an iterate differed from the image; an attack may return the image all the same,
        where no step raised its loss."""
        self.zero_gradient = torch.zeros(2, len(rows), dtype=torch.bool, device=rows.device)
        """(2, n) whether the gradient was exactly zero: at the first iterate, at a later one."""
        self.first = True
        self.losses: list[tuple[Tensor, Tensor]] = []
        """Rows, and the loss of each image; empty if the attack reports only the mean loss."""
        self.mean: bool | None = None
        """Whether the attack reports one mean loss for all images; the first iterate decides it."""
        self.targeted = False
        """Whether the attack is given a target."""
        self.odds = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=rows.device)
        """(n,) the highest log-odds of the attack's goal after the first iterate."""

    def __call__(
        self,
        rows: Tensor,
        x_adv: Tensor,
        logits: Tensor,
        loss: Tensor | None = None,
        grad: Tensor | None = None,
    ) -> Tensor:
        batch, batch_rows, trace = self.batch, self.rows[rows], self.trace
        trace.forwards += len(rows)
        self.seen.scatter_add_(0, rows, torch.ones_like(rows))
        still = (~self.moved[rows]).nonzero().flatten()
        if len(still):
            self.moved[rows[still]] = (x_adv[still] != batch.x[batch_rows[still]]).flatten(1).any(1)
        stepped = self.seen[rows] > 1
        odds = self._odds(logits[stepped], batch_rows[stepped])
        self.odds.scatter_reduce_(0, rows[stepped], odds, "amax")
        if grad is not None:
            trace.gradients += len(rows)
            zero = ~grad.flatten(1).any(1) & ~batch.is_adversarial[batch_rows]
            self.zero_gradient[0 if self.first else 1, rows[zero]] = True
            self.first = False
        if loss is not None:
            if self.mean is None:
                self.mean = len(loss) > 1 and bool((loss[1:] == loss[:-1]).double().mean() > 0.5)
            if not self.mean:
                self.losses.append((rows, loss))
        unbroken = ~batch.is_adversarial[batch_rows]
        fooled = batch.fooled(logits, batch_rows)
        candidates = (fooled & unbroken).nonzero().flatten()
        if len(candidates):
            broken = candidates[batch.check(batch_rows[candidates], x_adv[candidates])]
            batch.steps[batch_rows[broken]] += self.seen[rows[broken]]
            unbroken[broken] = False
        if len(self.queries.marks):  # what the float32 model refutes inside the ball does not count
            sizes = torch.full((len(rows),), torch.inf, dtype=x_adv.dtype, device=x_adv.device)
            if len(at := fooled.nonzero().flatten()):
                some, x, ball = x_adv[at], batch.x[batch_rows[at]], batch.ball.select(batch_rows[at])
                box = ((some >= 0) & (some <= 1)).flatten(1).all(1)
                refuted = ball.holds(some, x) & unbroken[at]
                sizes[at] = torch.where(box & ~refuted, ball.size(some - x), torch.inf)
            self.queries.note(rows, sizes)
        return ~batch.is_adversarial[batch_rows] if batch.drop else torch.ones_like(rows, dtype=torch.bool)

    def rising(self, left: Tensor) -> tuple[int, int]:
        """The number of images whose loss still rose at the end, and the number of images judged.

        Only images that stayed unbroken (`left`, (n,) bool) are judged. The best loss of an image
        so far, scaled to [0, 1] over all iterates, still rises if it rises by more than `FLAT` in
        the last `LAST` iterates (in the last fifth, if there are fewer than fifty) (Pintor et al.
        2022, indicator 4). If all losses are above 0, their logarithms are used. Fewer than `LEAST`
        iterates are not judged: the result is 0, 0.
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
            # while an image is classified correctly, cross-entropy falls exponentially with its margin
            course = course.log()
        first, final = course[0], course[-1]
        late = (final - course[-min(LAST, len(course) // 5) - 1]) / (final - first).clamp_min(1e-12)
        return int(((late > FLAT) & (final > first + 1e-6)).sum()), course.shape[1]

    def backwards(self, left: Tensor, result: Tensor) -> tuple[int, int]:
        """The number of images that an attack moved in the wrong direction, and the number judged.

        Only images that stayed unbroken (`left`, (n,) bool) are judged: by their iterates after the
        first, which may be a random start, or by the returned images `result` (n, C, H, W) if the
        attack did not show two iterates.
        """
        batch, rows = self.batch, self.rows[left]
        if not len(rows):
            return 0, 0
        before = self._odds(batched_logits(batch.float32_logits, batch.x[rows]), rows)
        after = self._odds(batched_logits(batch.float32_logits, result[left]), rows)
        after = torch.where(self.seen[left] > 1, self.odds[left], after)
        known = torch.isfinite(before) & torch.isfinite(after)
        fell = before - after > LEAST_FALL * before.abs().clamp_min(1)
        return int((fell & known).sum()), int(known.sum())

    def _odds(self, logits: Tensor, batch_rows: Tensor) -> Tensor:
        """(n,) the log-odds of the target or, without one, minus those of the label. An attack
        raises them."""
        target, sign = (self.batch.target, 1) if self.targeted else (self.batch.y, -1)
        assert target is not None
        goal = target[batch_rows][:, None]
        values = logits.detach().double()
        others = values.scatter(1, goal, -torch.inf).logsumexp(1)
        return sign * (values.gather(1, goal).squeeze(1) - others)

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Watches an attack that does not call `watch`: every forward pass of all its images counts
        as an iterate."""

        def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and len(inputs[0]) == len(self.rows):
                all_rows = torch.arange(len(self.rows), device=self.rows.device)
                with torch.no_grad():
                    self(all_rows, inputs[0].detach().float(), output.detach())

        handle = model.register_forward_hook(see)
        try:
            yield
        finally:
            handle.remove()


def _plain_options(attack: Bound) -> dict[str, Any]:
    """All options with their values, defaults included; a plug-in is replaced by its name."""
    return {
        key: value.function.__name__ if isinstance(value, Bound) else value
        for key, value in attack.all_options.items()
    }


def batched_logits(float32_logits: VerdictModel, x: Tensor) -> Tensor:
    """(n, K) logits of x (n, C, H, W). The batch is padded to a multiple of `MULTIPLE`, so that few
    batch shapes occur."""
    n = len(x)
    short = -n % MULTIPLE
    if not short:
        return float32_logits(x) if n else float32_logits(x.new_zeros(1, *x.shape[1:]))[:0]
    return float32_logits(torch.cat([x, x[:1].expand(short, *x.shape[1:])]))[:n]


def verdict_model(model: nn.Module, *, passes: int = 1, batch: int = 256, seed: int = 0) -> VerdictModel:
    """The logits that decide whether an image is broken, from a frozen model (`attacked`) in its
    own precision. For a random model, they are the mean over `passes` forward passes."""

    def float32_logits(x: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[x.device] if x.is_cuda else [], enabled=passes > 1),
        ):
            if passes > 1:
                torch.manual_seed(seed)
            precision = image_dtype(model, x.shape[1:])
            means = in_pieces(
                lambda rows: torch.stack([model(x[rows].to(precision)) for _ in range(passes)]).mean(0),
                len(x),
                images_at_once(model, x.shape[1:], min(batch, len(x))),
            )
        return torch.cat(means).to(x.dtype)

    return float32_logits
