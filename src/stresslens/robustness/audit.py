"""The known ways to fool oneself, looked for one by one: on a table, a curve, the attacks' own
path, a model, and by more attacks."""

from __future__ import annotations

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
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, closest
from stresslens.core.evidence import Curve, Row, Trace
from stresslens.core.evidence import Probe as AnyProbe
from stresslens.core.types import Finding
from stresslens.robustness.attack_batch import AttackBatch, batched_logits, verdict_model

PROBED = 128
"""Images of a probe."""
TO_END = 32
"""Of those, the ones that attacks are run to their end on."""
TARGETS = 3
"""Classes that a targeted attack of a probe drives each image at, the likeliest; with twice the
steps the likeliest one."""
ORDER = {"serious": 0, "minor": 1, "none": 2}
NEEDS = {
    "table": "a table of accuracies",
    "curve": "every image's smallest broken radius",
    "trace": "what the attacks showed on their way",
    "model": "the model",
    "images": "the images",
    "probe": "more attacks of its own",
}


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
    """Every audit, or `only` those named, on as much as there is: serious signs first, what could
    not be checked last.

    `images` are x (n, C, H, W) float in [0, 1] and their labels y (n,). Raises ConfigError for a
    name that is no audit.
    """
    names = registry.names("audits")
    for name in only or ():
        if name.replace(" ", "_") not in names:
            raise ConfigError(f"no audit is called {name!r}; {closest(name, names)}")
    chosen = names if only is None else [name.replace(" ", "_") for name in only]
    given = {
        "table": table,
        "curve": curve,
        "trace": trace,
        "model": model,
        "images": images,
        "probe": probe,
    }
    found = []
    for place, name in enumerate(chosen):
        progress.advance("audits", place, len(chosen))
        found.append(_one(name, registry.resolve("audits", name), given))
    progress.advance("audits", len(chosen), len(chosen))
    return sorted(found, key=lambda finding: (ORDER[finding.severity], finding.status == "not checked"))


def needs_of(name: str) -> tuple[str, ...]:
    """What an audit reads."""
    return registry.resolve("audits", name).needs


def _one(name: str, bound: Bound, given: Mapping[str, Any]) -> Finding:
    spoken = name.replace("_", " ")
    missing = [need for need in bound.needs if given[need] is None]
    if missing:
        return Finding(
            spoken, "not checked", "none", f"needs {' and '.join(NEEDS[need] for need in missing)}", 0
        )
    probe = given["probe"]
    if bound.asks_for("probe") and len(probe.labels) < 2:
        return Finding(
            spoken,
            "not checked",
            "none",
            "fewer than two of the images are right unattacked",
            len(probe.labels),
        )
    if bound.asks_for("probe") and not (probe.radii and probe.protocol):
        return Finding(spoken, "not checked", "none", "there is no radius above 0, or no attack", 0)
    before = probe.spent if probe is not None else 0.0
    try:
        finding: Finding = bound(**given)
    except Exception as error:  # a model or an attack of the user's own may raise anything
        why = str(error).splitlines()[0] if str(error) else "no message"
        return Finding(
            spoken, "not checked", "none", f"could not be carried out: {type(error).__name__}: {why}", 0
        )
    if bound.asks_for("probe"):
        finding = replace(finding, evidence=f"{finding.evidence} ({probe.spent - before:.1f} s)")
    return finding


class ExtraAttackProbe:
    """More attacks on up to `PROBED` of the images that are right unattacked, always the first of
    them; see `core.evidence.Probe`.

    What was found is kept, so that audits which begin with the same attacks at the same radius share it.
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
        """x (n, C, H, W) float32 in [0, 1] and y (n,) on the model's device; `protocol` names
        attacks as a study does, or is bound ones (`find.Bound`); their targeted attacks drive at
        `TARGETS` classes. `passes` is over how many a random model is averaged."""
        began = time.perf_counter()
        self.model, self.norm, self.seed, self.surrogate = model, norm, seed, surrogate
        self.radii = tuple(eps for eps in radii if eps > 0)
        self.protocol = tuple(_at_fewer(_bound(value), TARGETS) for value in protocol)
        self.longer = tuple(more for bound in self.protocol if (more := _doubled(bound)) is not None)
        self.passes, self.batch = passes, batch
        self.disturbed: list[str] = []
        self._found: dict[tuple[Any, ...], tuple[AttackBatch, list[Trace]]] = {}
        with attacked(model, seed):
            float32_logits = verdict_model(model, passes=passes, batch=batch)
            right: list[int] = []
            for start in range(0, len(x), size):
                guess = batched_logits(float32_logits, x[start : start + size]).argmax(1)
                right += [
                    start + place for place in (guess == y[start : start + size]).nonzero().flatten().tolist()
                ]
                if len(right) >= size:
                    break
        chosen = torch.tensor(right[:size], dtype=torch.int64, device=x.device)
        self.images, self.labels = x[chosen], y[chosen]
        self.spent = time.perf_counter() - began

    def broken(
        self, attacks: Sequence[Any], eps: float, *, to_end: bool = False
    ) -> tuple[NDArray[np.bool_], list[Trace]]:
        """See `core.evidence.Probe`."""
        search, traces = self._after(tuple(attacks), eps, to_end)
        broken = np.zeros(len(self.labels), dtype=bool)
        broken[: len(search.is_adversarial)] = search.is_adversarial.cpu().numpy()
        return broken, traces

    def _after(self, attacks: tuple[Any, ...], eps: float, to_end: bool) -> tuple[AttackBatch, list[Trace]]:
        attacks = tuple(_bound(value) for value in attacks)
        key = (eps, to_end, *((bound.function, repr(bound.options)) for bound in attacks))
        if key in self._found:
            return self._found[key]
        if not attacks:
            ball = Ball(
                self.norm, torch.tensor(eps if math.isfinite(eps) else _everything(self.norm, self.images))
            )
            float32_logits = verdict_model(self.model, passes=self.passes, batch=self.batch)
            most = TO_END if to_end else len(self.labels)
            search = AttackBatch(
                float32_logits, self.images[:most], self.labels[:most], ball, drop=not to_end
            )
            found: tuple[AttackBatch, list[Trace]] = (search, [])
        else:
            before, traces = self._after(attacks[:-1], eps, to_end)
            search = AttackBatch(before.float32_logits, before.x, before.y, before.ball, drop=not to_end)
            search.is_adversarial, search.x_adv, search.steps = (
                before.is_adversarial.clone(),
                before.x_adv.clone(),
                before.steps.clone(),
            )
            found = (search, [*traces, self._attempt(search, attacks[-1])])
        self._found[key] = found
        return found

    def _attempt(self, search: AttackBatch, bound: Bound) -> Trace:
        began, name = time.perf_counter(), bound.function.__name__
        draws = Draws(self.seed, torch.arange(len(search.y), device=self.images.device))
        with attacked(self.model, self.seed):
            modes = {module: module.training for module in self.model.modules()}
            steered = BatchedModel(self.model, batch=self.batch, passes=self.passes).eval()
            for module, training in modes.items():
                module.training = training
            grads = _grads(self.model)
            trace, _ = search.attempt(bound, steered, draws, name=name, surrogate=self.surrogate)
            self._notice(name, modes, grads)
        self.spent += time.perf_counter() - began
        return trace

    def _notice(
        self, name: str, modes: Mapping[nn.Module, bool], grads: Mapping[str, tuple[int, int]]
    ) -> None:
        """What an attack left in another state than it found it in."""
        turned = sum(module.training != training for module, training in modes.items())
        if turned:
            self.disturbed.append(
                f"{name} leaves {turned} of {len(modes)} parts of the model in another mode"
            )
        if _grads(self.model) != grads:
            self.disturbed.append(f"{name} leaves gradients in the model's parameters")
        if any(p.requires_grad for p in self.model.parameters()):
            self.disturbed.append(f"{name} asks gradients of the model's parameters")
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)


def _grads(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Which gradients the parameters hold, and how often each was written."""
    return {name: (id(p.grad), p.grad._version) for name, p in model.named_parameters() if p.grad is not None}


def _everything(norm: Norm, x: Tensor) -> float:
    """The radius that holds every image of the box."""
    pixels = x[0].numel() if len(x) else 1
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def _bound(value: Any) -> Bound:
    return value if isinstance(value, Bound) else registry.resolve("attacks", value)


def _doubled(bound: Bound) -> Bound | None:
    """The same attack with twice its steps or queries; None where it has neither."""
    declared = registry.options_of(bound.function)
    for option in ("steps", "queries"):
        if option in declared:
            count = bound.options.get(option, declared[option].default)
            return _at_fewer(replace(bound, options={**bound.options, option: 2 * count}), 1)
    return None


def _at_fewer(bound: Bound, most: int) -> Bound:
    """The same attack driving at no more than so many targets, where it has them."""
    if "targets" not in registry.options_of(bound.function):
        return bound
    targets = bound.options.get("targets") or most
    return replace(bound, options={**bound.options, "targets": min(targets, most)})
