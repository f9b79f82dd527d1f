"""Every image's smallest broken radius: the largest radius first, then downwards from what broke
it, nothing decided done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config.threat_model import BoundAttack, ThreatModel
from stresslens.core.attack_base import attacked, targets_of
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws, mix
from stresslens.core.evidence import Trace
from stresslens.core.files import read_arrays, write_atomically
from stresslens.robustness.attack_batch import AttackBatch, VerdictModel, batched_logits
from stresslens.robustness.autotune import RESOLVED, AttackCompute, step_of

KEPT = ("clean", "high", "low", "x_adv", "after", "by", "steps", "ranks", "valid", "ladder")
SAVE_SECONDS = 10.0
"""After so long what was found is saved within a chunk, as soon as an attack is done."""


@dataclass
class ImageChunk:
    """A fixed set of n images and what is known of each: the unit of work, of compaction and of resuming."""

    x: Tensor
    y: Tensor
    places: Tensor
    """Where the images stand in their split: what random draws follow from."""
    clean: Tensor
    """(n, K) logits, in float32."""
    target: Tensor | None
    high: Tensor
    """(n,) place of the smallest radius at which an image is known to be broken; the number of
    radii where none is known."""
    low: Tensor
    """(n,) place of the largest radius that an image is known to survive, -1 where none."""
    x_adv: Tensor
    after: Tensor
    """(n, K) the verdict on x_adv where the image is broken."""
    by: Tensor
    steps: Tensor
    ranks: Tensor
    """(attacks alone, radii, n) how many classes the returned image has before the true one."""
    valid: Tensor
    """(attacks alone, radii, n) whether it lies in ball and box."""
    ladder: Tensor
    """(attacks alone, radii, C, H, W) the chunk's first image as it was returned."""
    traces: list[Trace] = field(default_factory=list)
    under_way: dict[str, Any] = field(default_factory=dict)
    """The round that is going on, as far as it was saved: the next attack, and its search."""

    @property
    def right(self) -> Tensor:
        return self.clean.argmax(1) == self.y

    def arrays(self) -> dict[str, np.ndarray]:
        """As they are saved; `read_into` is the way back."""
        arrays = {name: getattr(self, name).cpu().numpy() for name in KEPT}
        under_way = {
            f"round_{name}": torch.as_tensor(value).cpu().numpy() for name, value in self.under_way.items()
        }
        return (
            arrays | under_way | {"traces": np.array(json.dumps([trace.as_json() for trace in self.traces]))}
        )

    def read_into(self, arrays: dict[str, np.ndarray]) -> None:
        for name in KEPT:
            setattr(self, name, torch.from_numpy(arrays[name]).to(self.x.device))
        self.under_way = {
            name.removeprefix("round_"): torch.from_numpy(value).to(self.x.device)
            for name, value in arrays.items()
            if name.startswith("round_")
        }
        self.traces = [Trace.from_json(values) for values in json.loads(str(arrays["traces"]))]


class RadiusSearch:
    """The search over radii for one chunk at a time."""

    def __init__(
        self,
        model: nn.Module,
        float32_logits: VerdictModel,
        threat: ThreatModel,
        compute: AttackCompute,
        *,
        surrogate: nn.Module | None = None,
    ) -> None:
        """`model` is held still and on its device."""
        self.float32_logits, self.threat, self.compute, self.surrogate = (
            float32_logits,
            threat,
            compute,
            surrogate,
        )
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.plain = compute.model(model, "float32")
        self.narrow = compute.model(model) if compute.precision == "bfloat16" else self.plain
        self._saved_at = 0.0
        self.levels = torch.tensor([eps for eps in threat.radii if eps > 0], dtype=torch.float32)

    def of(
        self,
        x: Tensor,
        y: Tensor,
        places: Tensor,
        *,
        state: Path | None = None,
        tell: Callable[[int], None] = lambda decided: None,
    ) -> ImageChunk:
        """The whole search. With `state`, a file, what is done is saved there on the way, and gone
        on with; `tell` is told how many images are decided."""
        chunk = self.begun(x, y, places, state)
        self._saved_at = time.perf_counter()
        self._alone(chunk, state)
        self._slip(chunk, torch.arange(len(x), device=x.device)[chunk.high < len(self.levels)])
        while len(open_ := self._open(chunk)) and self.threat.attempts:
            unbroken = open_[
                chunk.high[open_] == len(self.levels)
            ]  # by themselves: they have no adversarial to start from
            self._round(chunk, unbroken if len(unbroken) else open_, state)
            tell(int(len(x) - len(self._open(chunk))))
        return chunk

    def begun(self, x: Tensor, y: Tensor, places: Tensor, state: Path | None) -> ImageChunk:
        """A chunk before anything is known of it, or as it was saved."""
        n, levels, alone = len(x), len(self.levels), self.threat.alone
        clean = batched_logits(self.float32_logits, x)
        widest = max((len(each.radii) for each in alone), default=0)
        right = clean.argmax(1) == y
        high = torch.where(right, levels, 0)
        target = targets_of(self.threat.target, clean, y, Draws(mix(self.threat.seed, 99), places))
        low = torch.where(right, -1, levels)
        if self.threat.targeted_success and target is not None:  # nobody can be driven to where he is
            low = torch.where(right & (target == y), levels - 1, low)
        ranks = torch.full((len(alone), widest, n), -1, dtype=torch.int64, device=x.device)
        chunk = ImageChunk(
            x,
            y,
            places,
            clean,
            target,
            high,
            low,
            x.clone(),
            clean.clone(),
            torch.full((n,), -1, dtype=torch.int64, device=x.device),
            torch.zeros(n, dtype=torch.int64, device=x.device),
            ranks,
            torch.zeros_like(ranks, dtype=torch.bool),
            x[:1].expand(len(alone), widest, *x.shape[1:]).clone(),
        )
        if state is not None and state.exists():
            chunk.read_into(read_arrays(state, ""))
        return chunk

    def _open(self, chunk: ImageChunk) -> Tensor:
        """The images with a radius left between what they survive and what breaks them."""
        return (chunk.high - chunk.low > 1).nonzero().flatten()

    def _alone(self, chunk: ImageChunk, state: Path | None) -> None:
        """Each attack by itself at each of its radii, run to its end on every image."""
        for place, each in enumerate(self.threat.alone):
            for level, eps in enumerate(each.radii):
                if bool((chunk.ranks[place, level] >= 0).all()):
                    continue
                target = targets_of(each.target, chunk.clean, chunk.y, self._draws(chunk, place, level))
                search = AttackBatch(
                    self.float32_logits,
                    chunk.x,
                    chunk.y,
                    Ball(self.threat.norm, eps),
                    target=target,
                    drop=False,
                )
                trace, returned = self._attempt(
                    each, search, self._draws(chunk, place, level), eps, None, exact=True
                )
                chunk.traces.append(trace)
                logits = batched_logits(self.float32_logits, returned)
                own = logits.gather(1, chunk.y[:, None])
                others = torch.arange(logits.shape[1], device=logits.device) != chunk.y[:, None]
                chunk.ranks[place, level] = ((logits >= own) & others).sum(1)
                chunk.valid[place, level] = search.ball.holds(returned, chunk.x)
                chunk.ladder[place, level] = returned[0]
                if not self.threat.targeted_success:
                    everything = torch.arange(len(chunk.x), device=chunk.x.device)
                    self._keep(chunk, everything, search, torch.full_like(everything, place))
                if self._due(state):
                    self._save(state, chunk)

    def _round(self, chunk: ImageChunk, rows: Tensor, state: Path | None) -> None:
        """The protocol on images that are still open, each at the radius below the one that is
        known to break it."""
        level = chunk.high[rows] - 1
        ball = Ball(self.threat.norm, self.levels.to(rows.device)[level])
        target = None if chunk.target is None else chunk.target[rows]
        search = AttackBatch(
            self.float32_logits,
            chunk.x[rows],
            chunk.y[rows],
            ball,
            target=target,
            targeted_success=self.threat.targeted_success,
        )
        start = (
            None
            if chunk.high[rows[0]] == len(self.levels)
            else ball.project(chunk.x_adv[rows], chunk.x[rows])
        )
        by = torch.full_like(rows, -1)
        first = self._gone_on(chunk, search, by)
        for place, each in list(enumerate(self.threat.attempts))[first:]:
            before = search.is_adversarial.clone()
            draws = Draws(mix(self.threat.seed, place), chunk.places[rows])
            trace, _ = self._attempt(each, search, draws, float(self.levels[level].min()), start)
            chunk.traces.append(trace)
            by[search.is_adversarial & ~before] = len(self.threat.alone) + place
            if bool(search.is_adversarial.all()):
                break
            if self._due(state):
                found = {
                    "broken": search.is_adversarial,
                    "x_adv": search.x_adv,
                    "steps": search.steps,
                    "by": by,
                }
                if search.logits is not None:
                    found["logits"] = search.logits
                chunk.under_way = {"next": place + 1, **found}
                self._save(state, chunk)
                chunk.under_way = {}
        self._keep(chunk, rows, search, by)
        survived = rows[~search.is_adversarial]
        chunk.low[survived] = chunk.high[survived] - 1
        self._slip(chunk, rows[search.is_adversarial])

    def _due(self, state: Path | None) -> bool:
        return state is not None and time.perf_counter() - self._saved_at > SAVE_SECONDS

    def _save(self, state: Path | None, chunk: ImageChunk) -> None:
        if state is not None:
            save_chunk(state, chunk)
            self._saved_at = time.perf_counter()

    def _gone_on(self, chunk: ImageChunk, search: AttackBatch, by: Tensor) -> int:
        """Takes up a round that was saved half-way; returns the attack to go on with."""
        kept, chunk.under_way = chunk.under_way, {}
        if not kept:
            return 0
        search.is_adversarial, search.x_adv, search.steps = kept["broken"], kept["x_adv"], kept["steps"]
        search.logits = kept.get("logits")
        by.copy_(kept["by"])
        return int(kept["next"])

    def _attempt(
        self,
        each: BoundAttack,
        search: AttackBatch,
        draws: Draws,
        eps: float,
        start: Tensor | None,
        *,
        exact: bool = False,
    ) -> tuple[Trace, Tensor]:
        """`exact` is float32 throughout, for what is shown as it is returned."""
        step = None if exact else step_of(each.bound, eps)
        model = self.narrow if step is not None and step >= RESOLVED else self.plain
        with attacked(model, seed=mix(self.threat.seed, draws.seed)):
            return search.attempt(
                each.bound, model, draws, name=each.label, start=start, surrogate=self.surrogate
            )

    def _keep(self, chunk: ImageChunk, rows: Tensor, search: AttackBatch, by: Tensor) -> None:
        """Writes down what a search broke: at which radius by its size, by what, and with which image."""
        broken = search.is_adversarial.nonzero().flatten()
        level = self._level_of(search.x_adv[broken], search.x[broken])
        lower = level < chunk.high[rows[broken]]
        broken, level = broken[lower], level[lower]
        at = rows[broken]
        chunk.high[at], chunk.by[at] = level, by[broken]
        chunk.x_adv[at], chunk.steps[at] = search.x_adv[broken], search.steps[broken]
        if search.logits is not None:
            chunk.after[at] = search.logits[broken]

    def _level_of(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(n,) the place of the smallest radius whose ball holds the image, the number of radii
        where none does."""
        level = torch.full((len(x),), len(self.levels), dtype=torch.int64, device=x.device)
        for place in reversed(range(len(self.levels))):
            level[Ball(self.threat.norm, float(self.levels[place])).holds(x_adv, x)] = place
        return level

    def _slip(self, chunk: ImageChunk, rows: Tensor) -> None:
        """Brings broken images down radius by radius, by projecting the image that broke them, as
        long as that still does."""
        while len(rows := rows[chunk.high[rows] - chunk.low[rows] > 1]):
            ball = Ball(self.threat.norm, self.levels.to(rows.device)[chunk.high[rows] - 1])
            target = None if chunk.target is None else chunk.target[rows]
            search = AttackBatch(
                self.float32_logits,
                chunk.x[rows],
                chunk.y[rows],
                ball,
                target=target,
                targeted_success=self.threat.targeted_success,
            )
            nearer = ball.project(chunk.x_adv[rows], chunk.x[rows])
            rows = rows[search.check(torch.arange(len(rows), device=rows.device), nearer)]
            chunk.x_adv[rows] = search.x_adv[search.is_adversarial]
            if search.logits is not None:
                chunk.after[rows] = search.logits[search.is_adversarial]
            chunk.high[rows] -= 1

    def _draws(self, chunk: ImageChunk, *path: int) -> Draws:
        return Draws(mix(self.threat.seed, 1, *path), chunk.places)


def save_chunk(path: Path, chunk: ImageChunk) -> None:
    arrays: dict[str, Any] = chunk.arrays()
    write_atomically(path, lambda file: np.savez(file, **arrays))
