"""Audits of a robustness evaluation: run each audit plug-in on a table, a curve, traces of attacks,
a model and its images, and a probe that attacks the model again."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.registry import Bound
from stresslens.core import progress
from stresslens.core.answers import predicted
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import Curve, Row, Trace
from stresslens.core.evidence import Probe as AnyProbe
from stresslens.core.findings import not_checked
from stresslens.core.gradient_free import NoGradient
from stresslens.core.inspection import to_evaluation_mode
from stresslens.core.sampling import images_in_turn
from stresslens.core.spelling import closest
from stresslens.core.types import Finding
from stresslens.robustness.attack_batch import AttackBatch, batched_logits, verdict_model

PROBED = 128
"""The number of images that a probe attacks."""
TO_END = 32
"""The number of those images on which a probe runs attacks to their end."""
TARGETS = 3
"""The number of targets for each image in a targeted attack of a probe: the most likely classes. An
attack with twice the steps has one target."""
COSTS = {"doubled_steps": 300, "square_wins": 80, "not_returned": 60, "regions_win": 30}
"""About how long an audit takes, in tenths of one that attacks a little; others that attack are 10, those
that do not 1. Progress is counted in these, so that the time left can be believed."""
NEEDS = {
    "table": "a table of accuracies",
    "curve": "every image's minimal radius",
    "trace": "traces of the attacks",
    "model": "the model",
    "images": "the images",
    "probe": "further attacks",
}
"""What a finding says if an audit lacks this input."""


def audit(
    table: Sequence[Row] | None = None,
    curve: Curve | None = None,
    trace: Sequence[Trace] | None = None,
    model: nn.Module | None = None,
    images: tuple[Tensor, Tensor] | None = None,
    probe: AnyProbe | None = None,
    *,
    only: Sequence[str] | None = None,
) -> list[Finding]:
    """Runs every audit, or `only` the named ones, on the given inputs. Returns a finding for each
    audit: serious signs first, audits that could not check anything last.

    `images` are x (n, C, H, W) float in [0, 1] and their labels y (n,). An audit that looks at some
    of them only gets all classes in turn, drawn at random (`images_in_turn`). Raises ConfigError if
    `only` names an audit that does not exist.
    """
    names = registry.all_names("audits")
    for name in only or ():
        if name.replace(" ", "_") not in names:
            raise ConfigError(f"no audit is called {name!r}; {closest(name, names)}")
    chosen = names if only is None else [name.replace(" ", "_") for name in only]
    if images is not None:
        order = images_in_turn(*images, seed=0)
        images = images[0][order], images[1][order]
    given = {
        "table": table,
        "curve": curve,
        "trace": trace,
        "model": model,
        "images": images,
        "probe": probe,
    }
    bound = {name: registry.resolve("audits", name) for name in chosen}
    costs = {name: _cost(name, each, probe) for name, each in bound.items()}
    findings, done, total = [], 0, sum(costs.values())
    for name, each in bound.items():
        share, more = 100 * done / total, 100 * costs[name] / total
        progress.advance("audits, in percent", round(share), 100)
        with progress.part("audits, in percent", share, share + more, 100):
            findings.append(_run_audit(name, each, given))
        done += costs[name]
    progress.advance("audits, in percent", 100, 100)
    return sorted(findings, key=lambda finding: finding.rank)


def _cost(name: str, bound: Bound, probe: AnyProbe | None) -> int:
    return COSTS.get(name, 10) if probe is not None and bound.asks_for("probe") else 1


def needs_of(name: str) -> tuple[str, ...]:
    """The inputs that an audit needs, as keys of `NEEDS`."""
    return registry.resolve("audits", name).needs


def _run_audit(name: str, bound: Bound, given: Mapping[str, Any]) -> Finding:
    """The finding of one audit; "not checked" if an input is missing or the audit fails."""
    label = name.replace("_", " ")
    missing = [need for need in bound.needs if given[need] is None]
    if missing:
        return not_checked(label, f"needs {' and '.join(NEEDS[need] for need in missing)}")
    probe = given["probe"]
    if bound.asks_for("probe") and len(probe.labels) < 2:
        why = "fewer than two of the images are classified correctly without attack"
        return not_checked(label, why, len(probe.labels))
    if bound.asks_for("probe") and not (probe.radii and probe.protocol):
        return not_checked(label, "there is no radius above 0, or no attack")
    try:
        finding: Finding = bound(**given)
    except NoGradient as error:
        return not_checked(label, str(error))
    except Exception as error:  # the user's own model or attack may raise any exception
        reason = str(error).splitlines()[0] if str(error) else "no message"
        return not_checked(label, f"could not be carried out: {type(error).__name__}: {reason}")
    return finding


class ExtraAttackProbe:
    """Runs further attacks on `size` images that the model classifies correctly, drawn at random,
    all classes in turn; see `core.evidence.Probe`.

    Results are cached. Audits that begin with the same attacks at the same radius share them.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        norm: Norm,
        radii: Sequence[float],
        protocol: Sequence[Any],
        *,
        seed: int = 0,
        surrogate: nn.Module | None = None,
        size: int = PROBED,
        passes: int = 1,
        batch: int = 128,
    ) -> None:
        """x (n, C, H, W) float32 in [0, 1] and y (n,) are on the model's device. `protocol` holds
        attacks as in a study file, or bound attacks (`config.registry.Bound`); targeted attacks get
        at most `TARGETS` targets. A random model is averaged over `passes` forward passes."""
        began = time.perf_counter()
        self.model, self.norm, self.seed, self.surrogate = model, norm, seed, surrogate
        self.radii = tuple(eps for eps in radii if eps > 0)
        self.protocol = tuple(_with_at_most_targets(_bound(value), TARGETS) for value in protocol)
        self.longer = tuple(longer for bound in self.protocol if (longer := _doubled(bound)) is not None)
        self.passes, self.batch = passes, batch
        self.disturbed: list[str] = []
        self.given, self.size = (x, y), size
        right = torch.zeros(0, dtype=torch.int64, device=x.device)
        with attacked(model, seed):
            float32_logits = verdict_model(model, passes=passes, batch=batch)
            for some in torch.split(images_in_turn(x, y, seed=seed), size):
                correct = predicted(batched_logits(float32_logits, x[some])) == y[some]
                right = torch.cat([right, some[correct]])[:size]
                if len(right) == size:
                    break
        self._take(right)
        self.spent = time.perf_counter() - began

    def _take(self, positions: Tensor) -> None:
        self.images, self.labels = (values[positions] for values in self.given)
        self.positions = positions.cpu().numpy()
        self._cache: dict[tuple[Any, ...], tuple[AttackBatch, list[Trace]]] = {}

    def among(self, positions: NDArray[np.int64]) -> ExtraAttackProbe:
        """See `core.evidence.Probe`."""
        chosen = torch.from_numpy(positions).to(self.images.device)
        x, y = (values[chosen] for values in self.given)
        part = copy.copy(self)
        part._take(chosen[images_in_turn(x, y, seed=self.seed)[: self.size]])
        return part

    def broken(
        self, attacks: Sequence[Any], eps: float, *, to_end: bool = False
    ) -> tuple[NDArray[np.bool_], list[Trace]]:
        """See `core.evidence.Probe`."""
        batch, traces = self._batch_after(tuple(attacks), eps, to_end)
        broken = np.zeros(len(self.labels), dtype=bool)
        broken[: len(batch.is_adversarial)] = batch.is_adversarial.cpu().numpy()
        return broken, traces

    def _batch_after(
        self, attacks: tuple[Any, ...], eps: float, to_end: bool
    ) -> tuple[AttackBatch, list[Trace]]:
        """The batch after these attacks, one after the other, and their traces."""
        attacks = tuple(_bound(value) for value in attacks)
        key = (eps, to_end, *((bound.function, repr(bound.options)) for bound in attacks))
        if key in self._cache:
            return self._cache[key]
        if not attacks:
            radius = eps if math.isfinite(eps) else _radius_of_the_box(self.norm, self.images)
            ball = Ball(self.norm, torch.tensor(radius))
            float32_logits = verdict_model(self.model, passes=self.passes, batch=self.batch)
            n = TO_END if to_end else len(self.labels)
            batch = AttackBatch(float32_logits, self.images[:n], self.labels[:n], ball, drop=not to_end)
            traces: list[Trace] = []
        else:
            before, earlier = self._batch_after(attacks[:-1], eps, to_end)
            batch = AttackBatch(before.float32_logits, before.x, before.y, before.ball, drop=not to_end)
            batch.is_adversarial = before.is_adversarial.clone()
            batch.x_adv, batch.steps = before.x_adv.clone(), before.steps.clone()
            traces = [*earlier, self._run_attack(batch, attacks[-1])]
        self._cache[key] = batch, traces
        return batch, traces

    def _run_attack(self, batch: AttackBatch, bound: Bound) -> Trace:
        """Runs one attack on the batch, and notes the changes that it leaves in the model."""
        began, name = time.perf_counter(), bound.function.__name__
        draws = Draws(self.seed, torch.arange(len(batch.y), device=self.images.device))
        with attacked(self.model, self.seed):
            modes = {module: module.training for module in self.model.modules()}
            batched = BatchedModel(self.model, batch=self.batch, passes=self.passes)
            to_evaluation_mode(batched)
            for module, training in modes.items():
                module.training = training
            grads = _grads(self.model)
            trace, _ = batch.attack_unbroken(bound, batched, draws, name=name, surrogate=self.surrogate)
            self._note_changes(name, modes, grads)
        self.spent += time.perf_counter() - began
        return trace

    def _note_changes(
        self, name: str, modes: Mapping[nn.Module, bool], grads: Mapping[str, tuple[int, int]]
    ) -> None:
        """Adds the changes that an attack left in the model to `disturbed`."""
        changed = sum(module.training != training for module, training in modes.items())
        if changed:
            self.disturbed.append(
                f"{name} leaves {changed} of {len(modes)} parts of the model in another mode"
            )
        if _grads(self.model) != grads:
            self.disturbed.append(f"{name} leaves gradients in the model's parameters")
        if any(p.requires_grad for p in self.model.parameters()):
            self.disturbed.append(f"{name} turns on gradients of the model's parameters")
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)


def _grads(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The identity and version of each parameter's gradient; both change when it is written."""
    return {name: (id(p.grad), p.grad._version) for name, p in model.named_parameters() if p.grad is not None}


def _radius_of_the_box(norm: Norm, x: Tensor) -> float:
    """The radius of a ball that contains every image in [0, 1]."""
    pixels = x[0].numel() if len(x) else 1
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def _bound(value: Any) -> Bound:
    return value if isinstance(value, Bound) else registry.resolve("attacks", value)


def _doubled(bound: Bound) -> Bound | None:
    """The same attack with twice its steps or queries; None if it has neither option."""
    declared = registry.options_of(bound.function)
    for option in ("steps", "queries"):
        if option in declared:
            count = bound.options.get(option, declared[option].default)
            return _with_at_most_targets(replace(bound, options={**bound.options, option: 2 * count}), 1)
    return None


def _with_at_most_targets(bound: Bound, most: int) -> Bound:
    """The same attack with at most this many targets, if it has that option."""
    if "targets" not in registry.options_of(bound.function):
        return bound
    targets = bound.options.get("targets") or most
    return replace(bound, options={**bound.options, "targets": min(targets, most)})
