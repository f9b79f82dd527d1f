"""Validation of a configuration: plain values become a `VariantConfig`, or every mistake with
its path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from stresslens.config import old_words, registry
from stresslens.config.dotted_keys import LISTS, SLOTS
from stresslens.config.ensembles import member_runs, untrained, with_renamed_members
from stresslens.config.schema import (
    ESTIMATOR_KEYS,
    ChannelMoments,
    Corruptions,
    Evaluation,
    Explain,
    FineTune,
    IndividualAttack,
    Input,
    PluginValue,
    Robustness,
    Stop,
    Subset,
    Train,
    VariantConfig,
    Views,
)
from stresslens.config.selection_rules import RULES
from stresslens.config.setting_keys import keys_meant
from stresslens.config.teachers import teacher_run, with_renamed_teacher
from stresslens.config.threat_model import resolve_threat_model, why_not_attacked
from stresslens.config.trainable_models import is_trainable
from stresslens.config.wrong_values import shortened, wrong_value
from stresslens.core.errors import ConfigError, Problem, Problems
from stresslens.core.spelling import near, unknown_key
from stresslens.core.text import counted

VARIANT_CONFIG = TypeAdapter(VariantConfig)
T = TypeVar("T")


def validated(
    adapter: TypeAdapter[Any],
    values: Mapping[str, Any],
    problems: list[Problem],
    *,
    origins: Mapping[registry.Keys, registry.Keys] = {},
    owner_of: Callable[[registry.Keys], Any],
) -> Any:
    """The values as their dataclass, or None with the mistakes added to `problems`. `owner_of`
    gives the dataclass at a path."""
    try:
        # Through JSON: strict mode accepts a list for a tuple there only. The parser has already
        # refused numbers that JSON does not have.
        return adapter.validate_json(json.dumps(values, default=_plain), strict=True)
    except TypeError as error:
        problems.append(Problem((), str(error)))
        return None
    except ValidationError as error:
        for path, message in _by_path(error, values, owner_of).items():
            problems.append(Problem(place_written(path, origins), message))
        return None


def read_settings(kind: type[T], values: Mapping[str, Any], of: str) -> T:
    """A section of a study from values of the command line or a Python call, which may be numpy or
    torch scalars and arrays. `of` says what the settings belong to, for messages.

    Raises ConfigError with every wrong setting.
    """

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        what = f"a {type(value).__name__} is not a setting of {of}"
        raise ConfigError(f"{what}; expected numbers, names and lists of them, got {value!r:.60}")

    section = next(path for path, owner in _SECTIONS.items() if owner is kind)
    values = old_words.renamed(values, (section,))
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(values), default=plain), strict=True)
    except TypeError as error:
        raise ConfigError(f"this cannot be a setting of {of}: {error}") from None
    except ValidationError as error:
        by_key: dict[str, list[Any]] = {}
        for item in error.errors():
            by_key.setdefault(str(next(iter(item["loc"]), "")), []).append(item)
        at = section.split(".")
        lines = [f"{key}: {wrong_value(items, (*at, key))}" for key, items in by_key.items()]
        raise ConfigError("\n".join(lines)) from None


def _plain(value: Any) -> Any:
    """A numpy scalar as a Python number. Raises TypeError for any other object."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    raise TypeError(f"a {type(value).__name__} ({shortened(value)}) cannot be written to a study file")


def _by_path(
    error: ValidationError, values: Any, owner_of: Callable[[registry.Keys], Any]
) -> dict[registry.Keys, str]:
    """What is wrong by the path in `values`; the branches of a union share one path."""
    unusable: dict[registry.Keys, list[Any]] = {}
    messages: dict[registry.Keys, dict[str, None]] = {}
    for item in error.errors():
        path: list[str | int] = []
        at = values
        for key in item["loc"]:
            if (isinstance(at, Mapping) and key in at) or (
                isinstance(at, list) and isinstance(key, int) and key < len(at)
            ):
                path.append(key)
                at = at[key]  # type: ignore[index]
        said = messages.setdefault(tuple(path), {})
        if item["type"] == "unexpected_keyword_argument":
            said[_unknown(tuple(path), owner_of(tuple(path[:-1])), values)] = None
        elif item["type"] in ("missing", "missing_argument"):
            said[f"the key {item['loc'][-1]!r} is missing"] = None
        else:
            unusable.setdefault(tuple(path), []).append(item)
    for at_path, items in unusable.items():
        messages[at_path][wrong_value(items, at_path)] = None
    return {at_path: "; ".join(said) for at_path, said in messages.items()}


def _unknown(path: registry.Keys, owner: Any, values: Any) -> str:
    """The message for an unknown key of a section; a setting of another section is named."""
    key = str(path[-1]) if path else ""
    valid = [owner.__pydantic_fields__[name].alias or name for name in owner.__dataclass_fields__]
    elsewhere = owner in _SECTIONS.values() and near(key, valid) is None
    meant = keys_meant(".".join(map(str, path)), values) if elsewhere else ""
    return f"unknown key; did you mean {meant}?" if meant else unknown_key(key, valid)


_SECTIONS: dict[str, Any] = {
    "": VariantConfig,
    "input": Input,
    "train": Train,
    "train.stop": Stop,
    "train.subset": Subset,
    "train.fine_tune": FineTune,
    "input.normalize": ChannelMoments,
    "evaluation": Evaluation,
    "robustness": Robustness,
    "corruptions": Corruptions,
    "explain": Explain,
    "views": Views,
}


def section_of(path: registry.Keys) -> Any:
    """The dataclass of a section of a configuration."""
    return _SECTIONS.get(".".join(map(str, path)), IndividualAttack)


def place_written(path: registry.Keys, origins: Mapping[registry.Keys, registry.Keys]) -> registry.Keys:
    """Where the study file or the command line wrote a merged value: in the change that set it,
    or else in the study's own section."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            origin = origins[path[:length]]
            return origin + path[length:] if origin[0] in ("runs", "grid", "command line") else origin
    return path


def check_variant(
    values: dict[str, Any],
    at: registry.Keys,
    base: Path,
    problems: list[Problem],
    origins: Mapping[registry.Keys, registry.Keys],
) -> VariantConfig | None:
    """The configuration of the values, or None with the mistakes added to `problems`."""
    before = len(problems)
    values = _without_training(values, base, problems, origins)
    config = validated(VARIANT_CONFIG, values, problems, origins=origins, owner_of=section_of)
    for path, folder, value in plugins_in(values):
        try:
            registry.resolve(folder, value, path=path, base=base).answer_beside("check_options")
        except Problems as error:
            problems += [Problem(place_written(p.path, origins), p.message) for p in error.problems]
        except ConfigError as error:
            problems.append(Problem(place_written(path, origins), str(error)))
    if config is None or len(problems) > before:
        return None
    clashes = [*_clashes(config, values, base, origins)]
    problems += [Problem(place_written(path, origins), message) for path, message in clashes]
    return None if clashes else untrained(config)


def _without_training(
    values: dict[str, Any],
    base: Path,
    problems: list[Problem],
    origins: Mapping[registry.Keys, registry.Keys],
) -> dict[str, Any]:
    """The values with `epochs: 0` where the model cannot be trained, as its function `trainable` says; a
    mistake where they ask for epochs."""
    model, train = values.get("model"), values.get("train", {})
    if values.get("estimator") is not None or model is None or not isinstance(train, Mapping):
        return values
    try:
        name, _ = registry.name_and_options("models", model)
        trainable = is_trainable(registry.plugin("models", name, base=base))
    except ConfigError:  # reported where the model is checked
        return values
    if trainable:
        return values
    for key in ("epochs", "fine_tune"):
        if train.get(key):
            why = f"{name} is computed as it is and cannot be trained here; leave {key} out"
            problems.append(Problem(place_written(("train", key), origins), why))
    return {**values, "train": {**train, "epochs": 0}}


Clash = tuple[registry.Keys, str]
"""Settings that are valid one by one but conflict with each other: the path, and why."""


def _clashes(
    config: VariantConfig,
    values: Mapping[str, Any],
    base: Path,
    origins: Mapping[registry.Keys, registry.Keys],
) -> Iterator[Clash]:
    trackers = [registry.name_and_options("trackers", value)[0] for value in config.track or []]
    for k, name in enumerate(trackers):
        if name in trackers[:k]:
            yield ("track", k), f"{name} is already in the list"
    yield from _train_clashes(config.train, set(_at(values, ("train", "fine_tune")) or ()))
    try:
        if config.robustness is not None:
            threat = resolve_threat_model(config.robustness, base=base)
            if threat.needs_surrogate and config.robustness.surrogate is None:
                why = "the attack transfer needs one; give the name of another run of the study"
                yield ("robustness", "surrogate"), why
    except Problems as error:
        yield from ((p.path, p.message) for p in error.problems)
    try:
        registry.resolve(
            "objectives", objective_of(config.train, base), path=("train", "objective"), base=base
        )
    except Problems as error:
        yield from ((p.path, p.message) for p in error.problems)
    if config.estimator is not None:
        name = registry.name_and_options("estimators", config.estimator)[0]
        yield from _estimator_clashes(name, config, base, origins)


def _train_clashes(train: Train, fine_tuned: set[str]) -> Iterator[Clash]:
    """`fine_tuned` are the keys that `fine_tune` sets."""
    if train.batch_size == "full" and train.accumulate > 1:
        yield ("train", "accumulate"), "there are no batches to accumulate when batch_size is full"
    if train.stop and (train.stop.loss_change is None) == (train.stop.patience is None):
        yield ("train", "stop"), "give either loss_change or patience"
    if train.swa and train.ema:
        yield ("train", "swa"), "the weights are averaged by ema or over epochs (swa), not by both"
    if train.stop and train.stop.patience and train.select == "last":
        why = "patience waits for a better epoch, but `select: last` takes the last one; remove one of them"
        yield ("train", "select"), why
    if train.stop and train.stop.patience and "validation" not in train.watch:
        yield ("train", "watch"), "patience needs validation among the watched splits"
    if train.select in RULES and "validation" not in train.watch:
        yield ("train", "watch"), f"select: {train.select} needs validation among the watched splits"
    yield from _fine_tune_clashes(train, fine_tuned)
    if train.balance == "sampling" and (train.batch_size == "full" or not train.shuffle):
        why = "sampling draws the images of each epoch; it needs `shuffle` and a batch_size other than full"
        yield ("train", "balance"), why


FINE_TUNE_KEYS = {
    "all": {"layer_decay", "head_lr_scale", "batch_norm"},
    "head": set(),
    "gradual": {"unfreeze_every", "layer_decay", "head_lr_scale", "batch_norm"},
    "probe": {"penalties"},
}
"""The other keys of `fine_tune` that have an effect, by its `layers`."""


def _fine_tune_clashes(train: Train, given: set[str]) -> Iterator[Clash]:
    if train.fine_tune is None:
        return
    default = FineTune()  # a run's config.yaml gives every key; a default has no effect anyway
    changed = {key for key in given if getattr(train.fine_tune, key) != getattr(default, key)}
    for key in sorted(changed - FINE_TUNE_KEYS[train.fine_tune.layers] - {"layers"}):
        yield (
            ("train", "fine_tune", key),
            f"has no effect with layers: {train.fine_tune.layers}; leave it out",
        )
    if train.fine_tune.layers == "gradual" and train.epochs <= train.fine_tune.unfreeze_every:
        why = f"with {counted(train.epochs, 'epoch')} only the head would be trained; "
        why += "give more epochs, or set layers: head"
        yield ("train", "fine_tune", "unfreeze_every"), why


LACKING = {
    "surrogate": "gradients for an attack",
    "weights": "weights to start from",
    "teacher": "logits to learn from",
    "member": "weights to average",
}
"""What an estimator does not provide to another run; to an ensemble, though not to a soup, it may."""


def depends_on(config: VariantConfig) -> Iterator[tuple[str, str]]:
    """The other variants that must be trained before this one: what they provide (`surrogate`, `weights`,
    a `teacher` or, of an ensemble or a soup, a `member`), and their name."""
    if config.robustness is not None and config.robustness.surrogate is not None:
        yield "surrogate", config.robustness.surrogate
    weights = _weights(config.model)
    if config.estimator is None and isinstance(weights, dict) and isinstance(weights.get("run"), str):
        yield "weights", weights["run"]
    if (teacher := teacher_run(config)) is not None:
        yield "teacher", teacher
    yield from (("member", run) for run in member_runs(config))


def with_renamed_runs(config: VariantConfig, renamed: Mapping[str, str]) -> VariantConfig:
    """The configuration with new names for the other variants that it refers to."""
    if config.robustness is not None and config.robustness.surrogate is not None:
        surrogate = renamed.get(config.robustness.surrogate, config.robustness.surrogate)
        config = replace(config, robustness=replace(config.robustness, surrogate=surrogate))
    config = replace(config, model=with_renamed_members(config.model, renamed))
    objective = with_renamed_teacher(config.train.objective, renamed)
    config = replace(config, train=replace(config.train, objective=objective))
    weights = _weights(config.model)
    if isinstance(weights, dict) and weights.get("run") in renamed:
        name, options = registry.name_and_options("models", config.model)
        renamed_weights = {**weights, "run": renamed[weights["run"]]}
        config = replace(config, model={name: {**options, "weights": renamed_weights}})
    return config


def _weights(model: PluginValue) -> Any:
    return registry.name_and_options("models", model)[1].get("weights") if isinstance(model, dict) else None


def applies_to_estimators(key: str) -> bool:
    """Whether a dotted key has an effect on an estimator. Of `model`, `input` and `train` only the
    `ESTIMATOR_KEYS` of `train` do."""
    section, _, name = key.partition(".")
    return section not in ("model", "input", "train") or (
        section == "train" and name.partition(".")[0] in ESTIMATOR_KEYS
    )


def _estimator_clashes(
    name: str, config: VariantConfig, base: Path, origins: Mapping[registry.Keys, registry.Keys]
) -> Iterator[Clash]:
    """Settings of one variant that are impossible for an estimator or have no effect on it.
    Sections for all variants may contain such settings."""
    if config.robustness is not None:
        set_by_run = any(path[0] == "robustness" for path in origins)
        with suppress(Problems):  # reported already
            threat = resolve_threat_model(config.robustness, base=base)
            if why := why_not_attacked(threat, f"{name} is an estimator and"):
                at = ("robustness",) if set_by_run else ("estimator",)
                yield at, f"{why}. Or leave the attacks out of this run (robustness: null)"
    for path, origin in origins.items():
        if not applies_to_estimators(".".join(map(str, path))) and origin[0] != "command line":
            why = f"has no effect on the estimator {name}, which is not trained by gradients"
            yield path, f"{why}; remove it from this run"


def plugins_in(values: Mapping[str, Any]) -> Iterator[tuple[registry.Keys, str, Any]]:
    """Every plug-in in the plain values of a configuration: its path, its folder, and its name with
    options."""
    for path, folder in SLOTS.items():
        value = _at(values, path)
        if isinstance(value, str | Mapping):
            yield path, folder, value
    for path, folder in LISTS.items():
        listed = _at(values, path)
        for index, value in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(value, str | Mapping):
                yield (*path, index), folder, value


def _at(values: Any, path: registry.Keys) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def objective_of(train: Train, base: Path | None) -> PluginValue:
    """The objective with `train.loss` as its option `loss`, unless it sets that option or has
    none. A custom objective's file is relative to `base`."""
    name, options = registry.name_and_options("objectives", train.objective)
    function = registry.plugin("objectives", name, base=base)
    takes_loss = "loss" in registry.options_of(function) and "loss" not in options
    return {name: {**options, "loss": train.loss}} if takes_loss else {name: dict(options)}
