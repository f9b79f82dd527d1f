"""What a model is attacked with: norm, radii, protocol, and attacks on their own, each setting with
its type and default."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.config.schema import IndividualAttack, PluginValue, Robustness, Target
from stresslens.core.ball import Norm, parse_radii
from stresslens.core.errors import ConfigError, Problem, Problems, closest

FAST: tuple[PluginValue, ...] = (
    "fgsm",
    {"pgd": {"steps": 20}},
    {"apgd": {"loss": "ce", "steps": 50}},
    {"apgd": {"steps": 50}},
)
"""For every day: cheap attacks first, each on what the ones before left."""
STANDARD: tuple[PluginValue, ...] = (
    {"apgd": {"loss": "ce"}},
    {"apgd": {"loss": "auto"}},
    "fab",
    {"square": {"queries": 5000}},
)
"""The attacks and budgets of AutoAttack's standard version (Croce & Hein 2020), each on what the
ones before left."""
PROTOCOLS = {"fast": FAST, "standard": STANDARD}


@dataclass(frozen=True)
class BoundAttack:
    """An attack with its options bound; `value` is how a study writes it, `label` what it is called."""

    label: str
    value: PluginValue
    bound: registry.Bound
    target: Target | None = None
    radii: tuple[float, ...] = ()


@dataclass(frozen=True)
class ThreatModel:
    """A `Robustness` resolved: radii as ascending numbers, attacks bound to their options."""

    norm: Norm
    radii: tuple[float, ...]
    protocol: str
    attempts: tuple[BoundAttack, ...]
    alone: tuple[BoundAttack, ...]
    settings: Mapping[str, Any]
    seed: int = 0
    target: Target | None = None
    targeted_success: bool = False
    base: Path = Path()
    """The folder that paths to the user's own plug-ins start from."""

    @property
    def names(self) -> list[str]:
        """Everything that may break an image, the attacks on their own first."""
        return [each.label for each in (*self.alone, *self.attempts)]

    @property
    def needs_surrogate(self) -> bool:
        return any(
            each.asks_for("attacks", "surrogate")
            for one in (*self.attempts, *self.alone)
            for each in _nested(one.bound)
        )


def resolve_threat_model(
    asked: Robustness, *, base: Path, path: registry.Keys = ("robustness",)
) -> ThreatModel:
    """Raises Problems, one for each setting that cannot be carried out."""
    found: list[Problem] = []
    radii: list[float] = []
    try:
        radii = parse_radii(asked.radii, asked.norm)
    except ConfigError as error:
        found.append(Problem((*path, "radii"), str(error)))
    if asked.success == "target" and asked.target is None:
        found.append(Problem((*path, "success"), "success: target needs a target"))
    values = (
        []
        if asked.protocol == "none"
        else asked.protocol
        if isinstance(asked.protocol, list)
        else PROTOCOLS[asked.protocol]
    )
    if not values and not asked.individual_attacks:
        found.append(
            Problem(
                (*path, "protocol"), "nothing to do: give a protocol, or attacks under `individual_attacks`"
            )
        )
    attempts = [_bound_attack(value, (*path, "protocol"), base, asked.norm, found) for value in values]
    alone = []
    for place, each in enumerate(asked.individual_attacks):
        own = each if isinstance(each, IndividualAttack) else IndividualAttack(each)
        at = (*path, "individual_attacks", place)
        if isinstance(each, dict) and "attack" in each:
            keys = list(IndividualAttack.__dataclass_fields__)
            wrong = next((key for key in each if key not in keys), None)
            why = (
                f"unknown key {wrong!r}; {closest(str(wrong), keys)}"
                if wrong
                else "expected {attack: …, target: …, radii: …, name: …}"
            )
            found.append(Problem(at, why))
            continue
        try:
            own_radii = tuple(parse_radii(own.radii, asked.norm)) if own.radii is not None else tuple(radii)
        except ConfigError as error:
            found.append(Problem((*at, "radii"), str(error)))
            continue
        alone.append(_bound_attack(own.attack, at, base, asked.norm, found, own.name, own.target, own_radii))
    for place, value in enumerate(asked.certificates):
        try:
            norm_of(
                value, registry.resolve("certificates", value, path=(*path, "certificates", place), base=base)
            )
        except Problems as error:
            found += error.problems
        except ConfigError as error:
            found.append(Problem((*path, "certificates", place), str(error)))
    if found:
        raise Problems(found)
    labelled = _distinct([each for each in (*alone, *attempts) if each is not None])
    settings = {
        key: getattr(asked, {"passes": "eot_samples"}.get(key, key))
        for key in ("images", "split", "passes", "bpda", "surrogate", "target", "success", "seed")
    }
    if code := registry.source_digests([each.value for each in labelled], base=base):
        settings["plugins"] = code
    name = asked.protocol if isinstance(asked.protocol, str) else "own"
    return ThreatModel(
        asked.norm,
        tuple(radii),
        name,
        tuple(labelled[len(alone) :]),
        tuple(labelled[: len(alone)]),
        settings,
        asked.seed,
        asked.target,
        asked.success == "target",
        base,
    )


def label_of(value: PluginValue) -> str:
    """`pgd steps 20` of {"pgd": {"steps": 20}}."""
    name, options = registry.name_and_options("attacks", value)
    short = name.rpartition(":")[2]
    return " ".join(
        [short, *(f"{'' if key == 'loss' else f'{key} '}{_short(given)}" for key, given in options.items())]
    )


def norm_of(value: PluginValue, certificate: registry.Bound) -> str:
    """The norm that a certificate's radii are in. Raises ConfigError for one that does not say it."""
    declared = registry.options_of(certificate.function)
    if "norm" not in declared:
        name = registry.name_and_options("certificates", value)[0]
        raise ConfigError(
            f"the certificate {name} does not say in which norm its radii are: give it an option `norm`"
        )
    return str(certificate.options.get("norm", declared["norm"].default))


def _short(given: Any) -> str:
    return (
        label_of(given)
        if isinstance(given, dict)
        else f"{given:g}"
        if isinstance(given, float)
        else str(given)
    )


def _bound_attack(
    value: PluginValue,
    path: registry.Keys,
    base: Path,
    norm: Norm,
    found: list[Problem],
    name: str | None = None,
    target: Target | None = None,
    radii: tuple[float, ...] = (),
) -> BoundAttack | None:
    try:
        bound = registry.resolve("attacks", value, path=path, base=base)
        toward = f" toward {target}".replace("_", " ") if target is not None else ""
        others = [each for each in _nested(bound) if _only_norm(each) not in (None, norm)]
        found += [
            Problem(path, f"{e.function.__name__} is an attack of {_only_norm(e)}, not of {norm}")
            for e in others
        ]
        return BoundAttack(name or label_of(value) + toward, value, bound, target, radii)
    except Problems as error:
        found += error.problems
        return None


def _nested(bound: registry.Bound) -> list[registry.Bound]:
    """An attack and those that it is made of."""
    return [
        bound,
        *(
            each
            for option in bound.options.values()
            if isinstance(option, registry.Bound)
            for each in _nested(option)
        ),
    ]


def _only_norm(bound: registry.Bound) -> str | None:
    """The norm that the attack's ball is annotated with (`L2Ball`), if it knows only one."""
    ball = inspect.signature(bound.function, eval_str=True).parameters.get("ball")
    return getattr(ball.annotation, "__metadata__", (None,))[0] if ball is not None else None


def _distinct(attempts: list[BoundAttack]) -> list[BoundAttack]:
    """Each with a label of its own."""
    seen: dict[str, int] = {}
    named = []
    for each in attempts:
        seen[each.label] = seen.get(each.label, 0) + 1
        named.append(
            replace(each, label=f"{each.label} ({seen[each.label]})") if seen[each.label] > 1 else each
        )
    return named
