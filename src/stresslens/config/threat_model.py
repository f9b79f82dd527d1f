"""The threat model: norm, radii, the attacks of the protocol and individual attacks, resolved
from the section `robustness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.config.own_plugins import evaluated_signature, source_digests
from stresslens.config.schema import IndividualAttack, PluginValue, Robustness, Target
from stresslens.core.ball import Norm, parse_radii
from stresslens.core.class_names import class_number
from stresslens.core.errors import ConfigError, Problem, Problems
from stresslens.core.spelling import unknown_key
from stresslens.core.text import enumeration

FAST: tuple[PluginValue, ...] = (
    "fgsm",
    {"pgd": {"steps": 20, "momentum": 0.5}},
    {"apgd": {"loss": "ce", "steps": 50}},
    {"apgd": {"steps": 50}},
    "linear_regions",
)
"""For everyday use: cheap attacks first, each on the images that the earlier attacks did not
break."""
STANDARD: tuple[PluginValue, ...] = (
    {"pgd": {"steps": 40, "momentum": 0.75}},
    {"apgd": {"loss": "ce"}},
    {"apgd": {"loss": "auto"}},
    {"linear_regions": {"starts": 160, "chains": 16, "steps": 8}},
    "fab",
    {"square": {"queries": 5000}},
)
"""The attacks and budgets of AutoAttack's standard version (Croce & Hein 2020), and two more: PGD
with momentum, which follows the edge between two boundaries, and `linear_regions`. Each attack gets
the images that the earlier attacks did not break."""
STANDARD_L1: tuple[PluginValue, ...] = (
    STANDARD[0],
    {"apgd": {"loss": "ce", "restarts": 5}},
    *STANDARD[2:],
)
"""In l1, AutoAttack's standard version restarts APGD-CE five times (Croce & Hein 2021)."""
RULES = ("least_likely", "random")
"""Rules that choose a target for each image."""


def protocol_attacks(protocol: str, norm: Norm) -> tuple[PluginValue, ...]:
    """The attacks of a named protocol in a norm, in their order."""
    if protocol == "none":
        return ()
    return FAST if protocol == "fast" else STANDARD_L1 if norm == "l1" else STANDARD


@dataclass(frozen=True)
class BoundAttack:
    """An attack with its options bound. `value` is its entry in the study file, `label` its name in
    results."""

    label: str
    value: PluginValue
    bound: registry.Bound
    target: Target | None = None
    radii: tuple[float, ...] = ()


@dataclass(frozen=True)
class ThreatModel:
    """A resolved section `robustness`: radii as ascending numbers, attacks with their options
    bound.

    `attempts` are the attacks of the protocol, `alone` the individual attacks.
    """

    norm: Norm
    radii: tuple[float, ...]
    protocol: str
    attempts: tuple[BoundAttack, ...]
    alone: tuple[BoundAttack, ...]
    settings: Mapping[str, Any]
    config: Robustness
    """The section that this was resolved from."""
    seed: int = 0
    target: Target | None = None
    target_name: str = ""
    """The name of the target class, where names are known."""
    targeted_success: bool = False
    base: Path = Path()
    """Paths to custom plug-ins are relative to this folder."""

    @property
    def names(self) -> list[str]:
        """The labels of all attacks, the individual attacks first."""
        return [attack.label for attack in (*self.alone, *self.attempts)]

    @property
    def following_gradients(self) -> list[str]:
        """The labels of the attacks that follow the gradient of the attacked model."""
        return [each.label for each in (*self.alone, *self.attempts) if needs_gradient(each.bound)]

    @property
    def through_surrogate(self) -> list[registry.Bound]:
        """The attacks that run on the surrogate: the options of those that ask for it."""
        return [
            inner
            for attack in (*self.attempts, *self.alone)
            for bound in _nested(attack.bound)
            if bound.asks_for("surrogate")
            for inner in _nested(bound)[1:]
        ]

    @property
    def needs_surrogate(self) -> bool:
        return any(
            bound.asks_for("surrogate")
            for attack in (*self.attempts, *self.alone)
            for bound in _nested(attack.bound)
        )


def needs_gradient(attack: registry.Bound) -> bool:
    """Whether an attack follows the gradient of the model that it attacks. One that does not says so by
    a function `needs_gradient` beside it."""
    return attack.answer_beside("needs_gradient") is not False


def attacks_without_gradient() -> list[str]:
    """The names of the attacks that need no gradient of the attacked model."""
    found = []
    for name in registry.all_names("attacks"):
        with suppress(ConfigError):  # a package's plug-in that cannot be imported
            if not needs_gradient(registry.bind("attacks", registry.plugin("attacks", name), {})):
                found.append(name)
    return found


def why_not_attacked(threat: ThreatModel, what: str) -> str:
    """Why the attacks of a threat model cannot be carried out on a model without a gradient, which is
    `what` in words, and which ones can; empty where they can."""
    following = threat.following_gradients
    if not following:
        return ""
    attacks = "the attack" if len(following) == 1 else "the attacks"
    able = attacks_without_gradient()
    return (
        f"{what} has no gradient, and {attacks} {enumeration(following)} "
        f"{'follows' if len(following) == 1 else 'follow'} it; attacks that need none: {', '.join(able)} "
        "(transfer also needs a surrogate). For example --protocol '[square]'"
    )


def resolve_threat_model(
    config: Robustness, *, base: Path, path: registry.Keys = ("robustness",)
) -> ThreatModel:
    """Resolves the section `robustness`. Raises Problems, one for each setting that is not
    possible."""
    problems: list[Problem] = []
    radii: list[float] = []
    try:
        radii = parse_radii(config.radii, config.norm)
    except ConfigError as error:
        problems.append(Problem((*path, "radii"), str(error)))
    if config.success == "target" and config.target is None:
        problems.append(Problem((*path, "success"), "success: target needs a target"))
    if isinstance(config.protocol, list):
        values: Sequence[PluginValue] = config.protocol
    else:
        values = protocol_attacks(config.protocol, config.norm)
    if not values and not config.individual_attacks:
        why = "there is no attack; give a protocol, or attacks under `individual_attacks`"
        problems.append(Problem((*path, "protocol"), why))
    attempts = [_bound_attack(value, (*path, "protocol"), base, config.norm, problems) for value in values]
    alone = [
        _individual_attack(value, (*path, "individual_attacks", index), base, config.norm, radii, problems)
        for index, value in enumerate(config.individual_attacks)
    ]
    problems += _certificate_problems(config.certificates, (*path, "certificates"), base)
    if problems:
        raise Problems(problems)
    labelled = _distinct([attack for attack in (*alone, *attempts) if attack is not None])
    settings = {
        key: getattr(config, {"passes": "eot_samples"}.get(key, key))
        for key in ("images", "split", "passes", "bpda", "surrogate", "target", "success", "seed")
    }
    if code := source_digests([attack.value for attack in labelled], base=base):
        settings["plugins"] = code
    return ThreatModel(
        norm=config.norm,
        radii=tuple(radii),
        protocol=config.protocol if isinstance(config.protocol, str) else "own",
        attempts=tuple(labelled[len(alone) :]),
        alone=tuple(labelled[: len(alone)]),
        settings=settings,
        config=config,
        seed=config.seed,
        target=config.target,
        targeted_success=config.success == "target",
        base=base,
    )


def resolved_threat_model(config: Robustness, base: Path) -> ThreatModel:
    """As `resolve_threat_model`, for a section outside a study file. Raises ConfigError."""
    try:
        return resolve_threat_model(config, base=base, path=())
    except Problems as error:
        raise ConfigError(
            "\n".join(f"{p.path[0]}: {p.message}" if p.path else p.message for p in error.problems)
        ) from None


def with_class_numbers(threat: ThreatModel, classes: Sequence[str]) -> ThreatModel:
    """The same threat, where the target is a class of these by its number. Raises ConfigError for a
    target that is no class, or several."""

    def numbered(target: Target | None) -> Target | None:
        if target is None or target in RULES:
            return target
        return class_number(target, classes, "target")

    target = numbered(threat.target)
    return replace(
        threat,
        target=target,
        target_name=classes[target] if isinstance(target, int) else "",
        alone=tuple(replace(attack, target=numbered(attack.target)) for attack in threat.alone),
        settings={**threat.settings, "target": target},
    )


def with_known_names(threat: ThreatModel, classes: Sequence[str] | None) -> ThreatModel:
    """As `with_class_numbers` if a target is a name, and the names of the classes are known; numbers alone
    stay as they are."""
    targets = (threat.target, *(attack.target for attack in threat.alone))
    named = any(isinstance(target, str) and target not in RULES for target in targets)
    return with_class_numbers(threat, classes) if named and classes is not None else threat


def _individual_attack(
    value: IndividualAttack | PluginValue,
    path: registry.Keys,
    base: Path,
    norm: Norm,
    radii: Sequence[float],
    problems: list[Problem],
) -> BoundAttack | None:
    """An individual attack, at its own radii or else at those of the section."""
    if isinstance(value, dict) and "attack" in value:
        keys = list(IndividualAttack.__dataclass_fields__)
        wrong = next((key for key in value if key not in keys), None)
        why = "expected {attack: …, target: …, radii: …, name: …}"
        problems.append(Problem(path, unknown_key(wrong, keys, f"unknown key {wrong!r}") if wrong else why))
        return None
    entry = value if isinstance(value, IndividualAttack) else IndividualAttack(value)
    try:
        attack_radii = tuple(parse_radii(entry.radii, norm)) if entry.radii is not None else tuple(radii)
    except ConfigError as error:
        problems.append(Problem((*path, "radii"), str(error)))
        return None
    return _bound_attack(entry.attack, path, base, norm, problems, entry.name, entry.target, attack_radii)


def _certificate_problems(
    certificates: Sequence[PluginValue], path: registry.Keys, base: Path
) -> Iterator[Problem]:
    for index, value in enumerate(certificates):
        at = (*path, index)
        try:
            certificate = registry.resolve("certificates", value, path=at, base=base)
            norm_of(value, certificate)
            certificate.answer_beside("largest_radius")
        except Problems as error:
            yield from error.problems
        except ConfigError as error:
            yield Problem(at, str(error))


def label_of(value: PluginValue) -> str:
    """The label of an attack: `pgd steps 20` for {"pgd": {"steps": 20}}."""
    name, options = registry.name_and_options("attacks", value)
    short = name.rpartition(":")[2]
    return " ".join(
        [short, *(f"{'' if key == 'loss' else f'{key} '}{_short(given)}" for key, given in options.items())]
    )


def norm_of(value: PluginValue, certificate: registry.Bound) -> str:
    """The norm of a certificate's radii. Raises ConfigError where the certificate has no option
    `norm`."""
    declared = registry.options_of(certificate.function)
    if "norm" not in declared:
        name = registry.name_and_options("certificates", value)[0]
        raise ConfigError(
            f"the certificate {name} does not say which norm its radii have; give it an option `norm`"
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
    problems: list[Problem],
    name: str | None = None,
    target: Target | None = None,
    radii: tuple[float, ...] = (),
) -> BoundAttack | None:
    try:
        bound = registry.resolve("attacks", value, path=path, base=base)
        toward = f" toward {target}".replace("_", " ") if target is not None else ""
        mismatched = [part for part in _nested(bound) if norm not in (_norms(part) or (norm,))]
        problems += [
            Problem(
                path, f"{part.function.__name__} is an attack of {' and '.join(_norms(part))}, not of {norm}"
            )
            for part in mismatched
        ]
        return BoundAttack(name or label_of(value) + toward, value, bound, target, radii)
    except Problems as error:
        problems += error.problems
        return None


def _nested(bound: registry.Bound) -> list[registry.Bound]:
    """An attack and, recursively, the attacks among its options."""
    return [
        bound,
        *(
            inner
            for option in bound.options.values()
            if isinstance(option, registry.Bound)
            for inner in _nested(option)
        ),
    ]


def _norms(bound: registry.Bound) -> tuple[str, ...]:
    """The norms in the annotation of the attack's ball (`L2Ball`); empty if it supports them all."""
    ball = evaluated_signature(bound.function).parameters.get("ball")
    norms: tuple[str, ...] = getattr(ball.annotation, "__metadata__", ()) if ball is not None else ()
    return norms


def _distinct(attacks: list[BoundAttack]) -> list[BoundAttack]:
    """The attacks with unique labels: the second `pgd` becomes `pgd (2)`."""
    seen: dict[str, int] = {}
    labelled = []
    for attack in attacks:
        count = seen[attack.label] = seen.get(attack.label, 0) + 1
        labelled.append(replace(attack, label=f"{attack.label} ({count})") if count > 1 else attack)
    return labelled


def settings_of_result(threat: ThreatModel) -> dict[str, Any]:
    """The settings that a result depends on besides the model and the images, as in JSON."""
    return {
        **{key: value for key, value in threat.settings.items() if key != "alone"},
        "radii": list(threat.radii),
        "attempts": [[attack.label, attack.value] for attack in threat.attempts],
        "alone": [[attack.label, attack.value, attack.target, list(attack.radii)] for attack in threat.alone],
    }
