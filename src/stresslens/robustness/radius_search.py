"""Radius search: finds the minimal radius of every image, from the largest radius downwards.

The minimal radius of an image is the smallest attacked radius at which an attack breaks it. The
search uses every adversarial image for all radii that its size allows, so no radius of an image is
decided twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config.threat_model import BoundAttack, ThreatModel
from stresslens.core.answers import answered, predicted
from stresslens.core.array_file import BOOL, FLOAT, INTEGER, ArrayFile, Form
from stresslens.core.attack_base import attacked, targets_of
from stresslens.core.ball import Ball
from stresslens.core.copies import CHECKED
from stresslens.core.data import Split
from stresslens.core.draws import Draws, mix
from stresslens.core.dtypes import device_of
from stresslens.core.errors import first_line
from stresslens.core.evidence import Trace
from stresslens.core.files import UnreadableRun, write_arrays
from stresslens.robustness.attack_batch import AttackBatch, VerdictModel, batched_logits
from stresslens.robustness.autotune import RESOLVED, AttackCompute, step_of
from stresslens.robustness.query_curves import no_sizes

SAVED_ARRAYS = {
    "clean": "clean_logits",
    "high": "broken_level",
    "low": "robust_level",
    "x_adv": "x_adv",
    "after": "adversarial_logits",
    "by": "broken_by",
    "steps": "steps",
    "ranks": "ranks",
    "valid": "valid",
    "ladder": "ladder",
    "query_sizes": "query_sizes",
}
"""The arrays of a chunk's npz file, and the fields of `ImageChunk` that they hold."""
REMEDY = "delete it, and the same command computes it again"
"""Of a damaged file of a chunk."""
SAVE_SECONDS = 10.0
"""The search saves an unfinished chunk after the first attack that ends this long after the last
save."""


@dataclass
class ImageChunk:
    """n images, and what is known of each. The search computes, batches and resumes by chunks.

    A level is a position in the ascending list of radii above 0.
    """

    x: Tensor
    y: Tensor
    positions: Tensor
    """(n,) positions of the images in their split. Random draws depend on them."""
    clean_logits: Tensor
    """(n, K) logits of the original images, float32."""
    target: Tensor | None
    broken_level: Tensor
    """(n,) the lowest level at which the image is known to be broken; the number of levels if none
    is known."""
    robust_level: Tensor
    """(n,) the highest level at which the attacks are known to fail; -1 if none is known."""
    x_adv: Tensor
    adversarial_logits: Tensor
    """(n, K) logits of x_adv, float32; meaningful where the image is broken."""
    broken_by: Tensor
    """(n,) position of the attack in `ThreatModel.names`; -1 if no attack broke the image."""
    steps: Tensor
    ranks: Tensor
    """(individual attacks, radii, n) how many classes the model ranks before the true class on the
    returned image, all of them without an answer; -1 before the attack has run."""
    valid: Tensor
    """(individual attacks, radii, n) whether the returned image is inside ball and box."""
    ladder: Tensor
    """(individual attacks, radii, C, H, W) the returned images of the first image of the chunk."""
    query_sizes: Tensor
    """(n, individual attacks, radii, marks) see `QueryLog.sizes`; infinite before the attack."""
    traces: list[Trace] = field(default_factory=list)
    unfinished_round: dict[str, Any] = field(default_factory=dict)
    """The saved state of a round that was interrupted: its next attack, and what it has found."""

    @property
    def right(self) -> Tensor:
        """(n,) whether the model classifies the original image correctly."""
        return predicted(self.clean_logits) == self.y

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that `save_chunk` writes and `read_into` reads."""
        arrays = {name: getattr(self, field_).cpu().numpy() for name, field_ in SAVED_ARRAYS.items()}
        round_ = {
            f"round_{name}": torch.as_tensor(value).cpu().numpy()
            for name, value in self.unfinished_round.items()
        }
        return arrays | round_ | {"traces": np.array(json.dumps([trace.as_json() for trace in self.traces]))}

    def read_into(self, path: Path) -> None:
        """Overwrites the fields with the arrays of a file, which have the shapes of these. Raises
        UnreadableRun."""
        arrays = self._schema(path).read(path)
        for name, field_ in SAVED_ARRAYS.items():
            if name in arrays:
                setattr(self, field_, torch.from_numpy(arrays[name]).to(self.x.device))
        self.unfinished_round = {
            name.removeprefix("round_"): torch.from_numpy(value).to(self.x.device)
            for name, value in arrays.items()
            if name.startswith("round_")
        }
        try:
            self.traces = [Trace.from_json(values) for values in json.loads(str(arrays["traces"]))]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UnreadableRun(f"{path} is damaged: traces: {first_line(error)}; {REMEDY}") from error

    def _schema(self, path: Path) -> ArrayFile:
        """The arrays of a saved chunk: those of this one, and of a round that was interrupted."""
        forms = {name: Form(values.dtype.kind, values.shape) for name, values in self.arrays().items()}
        forms |= {"high": replace(forms["high"], least=0), "by": replace(forms["by"], least=-1)}
        forms["query_sizes"] = replace(forms["query_sizes"], optional=True)
        undecided = {
            "next": Form(INTEGER, (), least=0),
            "broken": Form(BOOL, ("undecided",)),
            "x_adv": Form(FLOAT, ("undecided", *self.x.shape[1:]), finite=True),
            "steps": Form(INTEGER, ("undecided",), least=0),
            "by": Form(INTEGER, ("undecided",), least=-1),
            "logits": Form(FLOAT, ("undecided", self.clean_logits.shape[1])),
        }
        round_ = {f"round_{name}": replace(form, optional=True) for name, form in undecided.items()}
        return ArrayFile(forms | round_, REMEDY)


class RadiusSearch:
    """Searches the minimal radii of one chunk of images after another."""

    def __init__(
        self,
        model: nn.Module,
        float32_logits: VerdictModel,
        threat: ThreatModel,
        compute: AttackCompute,
        images: Split,
        *,
        surrogate: nn.Module | None = None,
    ) -> None:
        """`model` must be frozen (`attacked`) and on its device. Copies of it are checked on the
        first of the `images`."""
        self.float32_logits, self.threat, self.compute, self.surrogate = (
            float32_logits,
            threat,
            compute,
            surrogate,
        )
        self.device = device_of(model)
        sample = images.floats(images.images[:CHECKED]).to(self.device, torch.float32)
        self.float32_model = compute.model(model, sample, "float32")
        self.fast_model = (
            compute.model(model, sample) if compute.precision == "bfloat16" else self.float32_model
        )
        self._saved_at = 0.0
        self.radii = torch.tensor([eps for eps in threat.radii if eps > 0], dtype=torch.float32)

    def search_chunk(
        self,
        x: Tensor,
        y: Tensor,
        positions: Tensor,
        *,
        state: Path | None = None,
        on_progress: Callable[[int], None] = lambda decided: None,
    ) -> ImageChunk:
        """Runs the whole search on images x (n, C, H, W) with labels y (n,).

        The search saves its progress in the file `state` if one is given, and resumes from it.
        `on_progress` receives the number of images whose minimal radius is decided.
        """
        chunk = self.open_chunk(x, y, positions, state)
        self._saved_at = time.perf_counter()
        self._run_individual_attacks(chunk, state)
        broken = torch.arange(len(x), device=x.device)[chunk.broken_level < len(self.radii)]
        self._lower_by_projection(chunk, broken)
        while len(undecided := self._undecided(chunk)) and self.threat.attempts:
            # unbroken images have no adversarial image to start from: they get rounds of their own
            unbroken = undecided[chunk.broken_level[undecided] == len(self.radii)]
            self._run_protocol(chunk, unbroken if len(unbroken) else undecided, state)
            on_progress(int(len(x) - len(self._undecided(chunk))))
        return chunk

    def open_chunk(self, x: Tensor, y: Tensor, positions: Tensor, saved: Path | None) -> ImageChunk:
        """A chunk without any attack, or the one in the file `saved` if that exists."""
        n, levels, individual = len(x), len(self.radii), self.threat.alone
        clean = batched_logits(self.float32_logits, x)
        most_radii = max((len(attack.radii) for attack in individual), default=0)
        right = predicted(clean) == y
        broken_level = torch.where(right, levels, 0)
        target = targets_of(self.threat.target, clean, y, Draws(mix(self.threat.seed, 99), positions))
        robust_level = torch.where(right, -1, levels)
        if isinstance(self.threat.target, int):  # an image of the target class is not attacked
            robust_level = torch.where(y == self.threat.target, levels, robust_level)
        ranks = torch.full((len(individual), most_radii, n), -1, dtype=torch.int64, device=x.device)
        chunk = ImageChunk(
            x,
            y,
            positions,
            clean,
            target,
            broken_level,
            robust_level,
            x_adv=x.clone(),
            adversarial_logits=clean.clone(),
            broken_by=torch.full((n,), -1, dtype=torch.int64, device=x.device),
            steps=torch.zeros(n, dtype=torch.int64, device=x.device),
            ranks=ranks,
            valid=torch.zeros_like(ranks, dtype=torch.bool),
            ladder=x[:1].expand(len(individual), most_radii, *x.shape[1:]).clone(),
            query_sizes=no_sizes([attack.bound for attack in individual], most_radii, x),
        )
        if saved is not None and saved.exists():
            chunk.read_into(saved)
        return chunk

    def _undecided(self, chunk: ImageChunk) -> Tensor:
        """Rows of the images that still have a radius between the robust and the broken level."""
        return (chunk.broken_level - chunk.robust_level > 1).nonzero().flatten()

    def _run_individual_attacks(self, chunk: ImageChunk, state: Path | None) -> None:
        """Runs each individual attack to its end, at each of its radii, on every image."""
        for attack_index, attack in enumerate(self.threat.alone):
            for level, eps in enumerate(attack.radii):
                if bool((chunk.ranks[attack_index, level] >= 0).all()):
                    continue
                target = targets_of(
                    attack.target, chunk.clean_logits, chunk.y, self._draws(chunk, attack_index, level)
                )
                ball = Ball(self.threat.norm, eps)
                batch = AttackBatch(self.float32_logits, chunk.x, chunk.y, ball, target=target, drop=False)
                trace, returned = self._run_attack(
                    attack, batch, self._draws(chunk, attack_index, level), eps, None, exact=True
                )
                chunk.traces.append(trace)
                logits = batched_logits(self.float32_logits, returned)
                true_logits = logits.gather(1, chunk.y[:, None])
                others = torch.arange(logits.shape[1], device=logits.device) != chunk.y[:, None]
                ranks = ((logits >= true_logits) & others).sum(1)
                chunk.ranks[attack_index, level] = torch.where(answered(logits), ranks, logits.shape[1])
                chunk.valid[attack_index, level] = batch.ball.holds(returned, chunk.x)
                chunk.ladder[attack_index, level] = returned[0]
                chunk.query_sizes[:, attack_index, level, : batch.query_sizes.shape[1]] = batch.query_sizes
                if not self.threat.targeted_success:
                    all_rows = torch.arange(len(chunk.x), device=chunk.x.device)
                    self._record_broken(chunk, all_rows, batch, torch.full_like(all_rows, attack_index))
                if self._save_is_due(state):
                    self._save(state, chunk)

    def _run_protocol(self, chunk: ImageChunk, rows: Tensor, state: Path | None) -> None:
        """One round: runs the attacks of the protocol on undecided images, each image at the level
        below its broken level."""
        level = chunk.broken_level[rows] - 1
        batch = self._batch_at(chunk, rows, level)
        start = (
            None
            if chunk.broken_level[rows[0]] == len(self.radii)
            else batch.ball.project(chunk.x_adv[rows], chunk.x[rows])
        )
        broken_by = torch.full_like(rows, -1)
        first = self._resume_round(chunk, batch, broken_by)
        for attack_index, attack in list(enumerate(self.threat.attempts))[first:]:
            before = batch.is_adversarial.clone()
            draws = Draws(mix(self.threat.seed, attack_index), chunk.positions[rows])
            trace, _ = self._run_attack(attack, batch, draws, float(self.radii[level].min()), start)
            chunk.traces.append(trace)
            broken_by[batch.is_adversarial & ~before] = len(self.threat.alone) + attack_index
            if bool(batch.is_adversarial.all()):
                break
            if self._save_is_due(state):
                chunk.unfinished_round = {
                    "next": attack_index + 1,
                    "broken": batch.is_adversarial,
                    "x_adv": batch.x_adv,
                    "steps": batch.steps,
                    "by": broken_by,
                }
                if batch.logits is not None:
                    chunk.unfinished_round["logits"] = batch.logits
                self._save(state, chunk)
                chunk.unfinished_round = {}
        self._record_broken(chunk, rows, batch, broken_by)
        survived = rows[~batch.is_adversarial]
        chunk.robust_level[survived] = chunk.broken_level[survived] - 1
        self._lower_by_projection(chunk, rows[batch.is_adversarial])

    def _batch_at(self, chunk: ImageChunk, rows: Tensor, level: Tensor) -> AttackBatch:
        """The images `rows` (m,), each with the ball of its own `level` (m,)."""
        return AttackBatch(
            self.float32_logits,
            chunk.x[rows],
            chunk.y[rows],
            Ball(self.threat.norm, self.radii.to(rows.device)[level]),
            target=None if chunk.target is None else chunk.target[rows],
            targeted_success=self.threat.targeted_success,
        )

    def _save_is_due(self, state: Path | None) -> bool:
        return state is not None and time.perf_counter() - self._saved_at > SAVE_SECONDS

    def _save(self, state: Path | None, chunk: ImageChunk) -> None:
        if state is not None:
            save_chunk(state, chunk)
            self._saved_at = time.perf_counter()

    def _resume_round(self, chunk: ImageChunk, batch: AttackBatch, broken_by: Tensor) -> int:
        """Restores a round that was saved unfinished, if there is one. Returns the position of the
        next attack."""
        saved, chunk.unfinished_round = chunk.unfinished_round, {}
        if not saved:
            return 0
        if not saved.keys() >= {"next", "broken", "x_adv", "steps", "by"} or len(saved["by"]) != len(batch.x):
            raise UnreadableRun(f"a saved chunk of the attack is damaged: {REMEDY}")
        batch.is_adversarial, batch.x_adv, batch.steps = saved["broken"], saved["x_adv"], saved["steps"]
        batch.logits = saved.get("logits")
        broken_by.copy_(saved["by"])
        return int(saved["next"])

    def _run_attack(
        self,
        attack: BoundAttack,
        batch: AttackBatch,
        draws: Draws,
        eps: float,
        start: Tensor | None,
        *,
        exact: bool = False,
    ) -> tuple[Trace, Tensor]:
        """Chooses the precision for an attack and runs it on the batch.

        Steps that bfloat16 cannot resolve are taken in float32. With `exact`, all is float32,
        because the returned images are shown as they are.
        """
        step = None if exact else step_of(attack.bound, eps)
        model = self.fast_model if step is not None and step >= RESOLVED else self.float32_model
        with attacked(model, seed=mix(self.threat.seed, draws.seed)):
            return batch.attack_unbroken(
                attack.bound, model, draws, name=attack.label, start=start, surrogate=self.surrogate
            )

    def _record_broken(self, chunk: ImageChunk, rows: Tensor, batch: AttackBatch, broken_by: Tensor) -> None:
        """Copies broken images from the batch to the chunk. The size of the perturbation gives the
        level; an image that the chunk has broken at that level or below stays as it is."""
        broken = batch.is_adversarial.nonzero().flatten()
        level = self._level_of(batch.x_adv[broken], batch.x[broken])
        lower = level < chunk.broken_level[rows[broken]]
        broken, level = broken[lower], level[lower]
        at = rows[broken]
        chunk.broken_level[at], chunk.broken_by[at] = level, broken_by[broken]
        chunk.x_adv[at], chunk.steps[at] = batch.x_adv[broken], batch.steps[broken]
        if batch.logits is not None:
            chunk.adversarial_logits[at] = batch.logits[broken]

    def _level_of(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(n,) the lowest level whose ball contains the image; the number of levels if none
        does."""
        lowest = torch.full((len(x),), len(self.radii), dtype=torch.int64, device=x.device)
        for level in reversed(range(len(self.radii))):
            lowest[Ball(self.threat.norm, float(self.radii[level])).holds(x_adv, x)] = level
        return lowest

    def _lower_by_projection(self, chunk: ImageChunk, rows: Tensor) -> None:
        """Lowers the broken level of images without an attack: projects the adversarial image onto
        the next smaller ball, as long as it still fools the model there."""
        while len(rows := rows[chunk.broken_level[rows] - chunk.robust_level[rows] > 1]):
            batch = self._batch_at(chunk, rows, chunk.broken_level[rows] - 1)
            nearer = batch.ball.project(chunk.x_adv[rows], chunk.x[rows])
            rows = rows[batch.check(torch.arange(len(rows), device=rows.device), nearer)]
            chunk.x_adv[rows] = batch.x_adv[batch.is_adversarial]
            if batch.logits is not None:
                chunk.adversarial_logits[rows] = batch.logits[batch.is_adversarial]
            chunk.broken_level[rows] -= 1

    def _draws(self, chunk: ImageChunk, *path: int) -> Draws:
        return Draws(mix(self.threat.seed, 1, *path), chunk.positions)


def save_chunk(path: Path, chunk: ImageChunk) -> None:
    """Writes the chunk as an npz file, atomically."""
    arrays: dict[str, Any] = chunk.arrays()
    write_arrays(path, arrays)
