"""Plain values → a validated recipe, or every mistake with its path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from stresslens.config import old_words, registry
from stresslens.config.dotted_keys import LISTS, SLOTS
from stresslens.config.schema import (
    ESTIMATOR_KEYS,
    ChannelMoments,
    Corruptions,
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
from stresslens.config.selection import RULES
from stresslens.config.threat_model import resolve_threat_model
from stresslens.core.errors import ConfigError, Problem, Problems, closest

VARIANT_CONFIG = TypeAdapter(VariantConfig)
T = TypeVar("T")


def validated(
    adapter: TypeAdapter[Any],
    values: Mapping[str, Any],
    found: list[Problem],
    *,
    origins: Mapping[registry.Keys, registry.Keys] = {},
    owner_of: Callable[[registry.Keys], Any],
) -> Any:
    """The values as their dataclass, or None with what is wrong added to `found`; `owner_of` gives
    the dataclass at a path."""
    try:
        # Through JSON, where strictness still lets a list be a tuple; numbers that JSON lacks were
        # refused when parsed.
        return adapter.validate_json(json.dumps(values, default=_plain), strict=True)
    except TypeError as error:
        found.append(Problem((), str(error)))
        return None
    except ValidationError as error:
        for path, messages in _grouped(error, values, owner_of).items():
            found.append(Problem(place_written(path, origins), "; ".join(messages)))
        return None


def read_settings(kind: type[T], values: Mapping[str, Any], of: str) -> T:
    """A section of a study from values that were typed or passed, numpy's and torch's among them,
    which are settings `of` that.

    Raises ConfigError naming every setting that is wrong.
    """

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        what = f"a {type(value).__name__} is no setting of {of}"
        raise ConfigError(f"{what}; expected numbers, names and lists of them, got {value!r:.60}")

    section = next(path for path, owner in _SECTIONS.items() if owner is kind)
    values = old_words.renamed(values, (section,))
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(values), default=plain), strict=True)
    except TypeError as error:
        raise ConfigError(f"this cannot be a setting of {of}: {error}") from None
    except ValidationError as error:
        told: dict[str, list[str]] = {}
        for item in error.errors():
            told.setdefault(str(next(iter(item["loc"]), "")), []).append(item["msg"].lower())
        lines = [
            f"{key}: {', or '.join(dict.fromkeys(messages))}, got {values.get(key)!r}"
            for key, messages in told.items()
        ]
        raise ConfigError("\n".join(lines)) from None


def _plain(value: Any) -> Any:
    """numpy's scalars as Python's; anything else has no place in a study."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    raise TypeError(
        f"a {type(value).__name__} ({shortened(value)}) is not a setting that can be written down"
    )


def _grouped(
    error: ValidationError, values: Any, owner_of: Callable[[registry.Keys], Any]
) -> dict[registry.Keys, list[str]]:
    """Pydantic's errors by the path in `values`; the branches of a union are told in one line."""
    grouped: dict[registry.Keys, list[str]] = {}
    for item in error.errors():
        path: list[str | int] = []
        at = values
        for key in item["loc"]:
            if (isinstance(at, Mapping) and key in at) or (
                isinstance(at, list) and isinstance(key, int) and key < len(at)
            ):
                path.append(key)
                at = at[key]  # type: ignore[index]
        if item["type"] == "unexpected_keyword_argument":
            parent = tuple(path[:-1])
            message = f"unknown key; {closest(str(path[-1]) if path else '', list(owner_of(parent).__dataclass_fields__))}"
        elif item["type"] in ("missing", "missing_argument"):
            message = f"the key {item['loc'][-1]!r} is missing"
        else:
            message = f"{item['msg'][0].lower()}{item['msg'][1:]}, got {shortened(item['input'])}"
        messages = grouped.setdefault(tuple(path), [])
        if message not in messages:
            messages.append(message)
    return grouped


_SECTIONS: dict[str, Any] = {
    "": VariantConfig,
    "input": Input,
    "train": Train,
    "train.stop": Stop,
    "train.subset": Subset,
    "train.fine_tune": FineTune,
    "input.normalize": ChannelMoments,
    "robustness": Robustness,
    "corruptions": Corruptions,
    "explain": Explain,
    "views": Views,
}


def section_of(path: registry.Keys) -> Any:
    """The dataclass behind a section of a recipe."""
    return _SECTIONS.get(".".join(map(str, path)), IndividualAttack)


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def place_written(path: registry.Keys, origins: Mapping[registry.Keys, registry.Keys]) -> registry.Keys:
    """Where a merged value was written: in the override that set it, else in the study's own section."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            origin = origins[path[:length]]
            return origin + path[length:] if origin[0] in ("runs", "grid") else origin
    return path


def check_variant(
    values: dict[str, Any],
    at: registry.Keys,
    base: Path,
    found: list[Problem],
    origins: Mapping[registry.Keys, registry.Keys],
) -> VariantConfig | None:
    before = len(found)
    config = validated(VARIANT_CONFIG, values, found, origins=origins, owner_of=section_of)
    for path, folder, value in plugins_in(values):
        try:
            registry.resolve(folder, value, path=path, base=base)
        except Problems as error:
            found += [Problem(place_written(p.path, origins), p.message) for p in error.problems]
    if config is None or len(found) > before:
        return None
    train = config.train
    clash: list[tuple[registry.Keys, str]] = []
    trackers = [
        registry.name_and_options("trackers", value)[0].rpartition(":")[2] for value in config.track or []
    ]
    clash += [
        (("track", k), f"{name} is there already") for k, name in enumerate(trackers) if name in trackers[:k]
    ]
    if train.batch_size == "full" and train.accumulate > 1:
        clash.append((("train", "accumulate"), "there is nothing to accumulate over when batch_size is full"))
    if train.stop and (train.stop.loss_change is None) == (train.stop.patience is None):
        clash.append((("train", "stop"), "give either loss_change or patience"))
    if train.stop and train.stop.patience and train.select == "last":
        clash.append(
            (
                ("train", "select"),
                "patience waits for a better epoch, and `select: last` takes the last one; drop one of them",
            )
        )
    if train.stop and train.stop.patience and "validation" not in train.watch:
        clash.append((("train", "watch"), "patience needs validation among the splits watched"))
    if train.select in RULES and "validation" not in train.watch:
        clash.append(
            (("train", "watch"), f"select: {train.select} needs validation among the splits watched")
        )
    clash += _fine_tune_clashes(train, set(_at(values, ("train", "fine_tune")) or ()))
    if train.balance == "sampling" and (train.batch_size == "full" or not train.shuffle):
        clash.append(
            (
                ("train", "balance"),
                "sampling draws anew for each epoch; it needs shuffled batches smaller than all images",
            )
        )
    if config.robustness is not None:
        try:
            threat = resolve_threat_model(config.robustness, base=base)
            if threat.needs_surrogate and config.robustness.surrogate is None:
                clash.append(
                    (
                        ("robustness", "surrogate"),
                        "the attack transfer needs one: another run of the study, by its name",
                    )
                )
        except Problems as error:
            clash += [(p.path, p.message) for p in error.problems]
    try:
        registry.resolve("objectives", objective_of(train), path=("train", "objective"), base=base)
    except Problems as error:
        clash += [(p.path, p.message) for p in error.problems]
    if config.estimator is not None:
        clash += _for_an_estimator(
            registry.name_and_options("estimators", config.estimator)[0], config, origins
        )
    found += [Problem(place_written(path, origins), message) for path, message in clash]
    return None if clash else config


FINE_TUNE_KEYS = {
    "all": {"layer_decay", "head_lr_scale", "batch_norm"},
    "head": set(),
    "gradual": {"unfreeze_every", "layer_decay", "head_lr_scale", "batch_norm"},
    "probe": {"penalties"},
}
"""What else of `fine_tune` means something, by its `layers`."""


def _fine_tune_clashes(train: Train, given: set[str]) -> Iterator[tuple[registry.Keys, str]]:
    if train.fine_tune is None:
        return
    for key in sorted(given - FINE_TUNE_KEYS[train.fine_tune.layers] - {"layers"}):
        yield (
            ("train", "fine_tune", key),
            f"means nothing with layers: {train.fine_tune.layers}; leave it out",
        )
    if train.fine_tune.layers == "gradual" and train.epochs <= train.fine_tune.unfreeze_every:
        why = f"in {train.epochs} epochs the head alone would be trained; lower it, or set layers: head"
        yield ("train", "fine_tune", "unfreeze_every"), why


def depends_on(config: VariantConfig) -> Iterator[tuple[str, str]]:
    """The other runs that a recipe needs trained first: what for, and by what name."""
    if config.robustness is not None and config.robustness.surrogate is not None:
        yield "surrogate", config.robustness.surrogate
    begins = _weights(config.model)
    if config.estimator is None and isinstance(begins, dict) and isinstance(begins.get("run"), str):
        yield "weights", begins["run"]


def with_renamed_runs(config: VariantConfig, renamed: Mapping[str, str]) -> VariantConfig:
    """The recipe with the runs it needs under their new names."""
    if config.robustness is not None and config.robustness.surrogate is not None:
        surrogate = renamed.get(config.robustness.surrogate, config.robustness.surrogate)
        config = replace(config, robustness=replace(config.robustness, surrogate=surrogate))
    begins = _weights(config.model)
    if isinstance(begins, dict) and begins.get("run") in renamed:
        name, options = registry.name_and_options("models", config.model)
        config = replace(
            config, model={name: {**options, "weights": {**begins, "run": renamed[begins["run"]]}}}
        )
    return config


def _weights(model: PluginValue) -> Any:
    return registry.name_and_options("models", model)[1].get("weights") if isinstance(model, dict) else None


def applies_to_estimators(key: str) -> bool:
    """Whether a dotted key says anything to an estimator: nothing of a model, its input or its
    training does, but for `ESTIMATOR_KEYS`."""
    section, _, name = key.partition(".")
    return section not in ("model", "input", "train") or (
        section == "train" and name.partition(".")[0] in ESTIMATOR_KEYS
    )


def _for_an_estimator(
    name: str, config: VariantConfig, origins: Mapping[registry.Keys, registry.Keys]
) -> Iterator[tuple[registry.Keys, str]]:
    """What cannot be asked of an estimator, or means nothing to it though its run sets it; sections
    for all runs may be there."""
    if config.robustness is not None:
        own = any(path[0] == "robustness" for path in origins)
        yield (
            ("robustness",) if own else ("estimator",),
            f"{name} is an estimator, without gradients for attacks to follow; attacked blindly alone it would look more robust "
            "than it is. Take the attack away from this run (robustness: null)",
        )
    for path, origin in origins.items():
        if not applies_to_estimators(".".join(map(str, path))) and origin[0] != "command line":
            yield (
                path,
                f"means nothing to the estimator {name}, which no gradient trains; take it out of this run",
            )


def plugins_in(values: Mapping[str, Any]) -> Iterator[tuple[registry.Keys, str, Any]]:
    """Every plug-in a recipe's plain values name: its path, its folder, and the name with its options."""
    for path, folder in SLOTS.items():
        at = _at(values, path)
        if isinstance(at, str | Mapping):
            yield path, folder, at
    for path, folder in LISTS.items():
        listed = _at(values, path)
        for place, value in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(value, str | Mapping):
                yield (*path, place), folder, value


def _at(values: Any, path: registry.Keys) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def objective_of(train: Train) -> PluginValue:
    """The objective with `train.loss` as its loss, unless it names its own or has none."""
    name, options = registry.name_and_options("objectives", train.objective)
    function = registry.plugin("objectives", name)
    takes_loss = "loss" in registry.options_of(function) and "loss" not in options
    return {name: {**options, "loss": train.loss}} if takes_loss else {name: dict(options)}
