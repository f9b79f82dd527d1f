"""Ensembles and soups in a configuration: the runs that they are made of, and the settings that they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stresslens.config.registry import name_and_options
from stresslens.config.schema import COMPUTE_KEYS, Input, PluginValue, Train, VariantConfig

ENSEMBLE, SOUP = "ensemble", "soup"
"""The models that are made of other runs: by their answers, and by their weights."""


def member_runs(config: VariantConfig) -> list[str]:
    """The names of the runs that an ensemble or a soup is made of; none for another model."""
    return [] if config.estimator is not None else _runs(config.model)


def is_soup(config: VariantConfig) -> bool:
    """Whether the model is the mean of the weights of other runs."""
    return config.estimator is None and name_and_options("models", config.model)[0] == SOUP


def is_greedy(config: VariantConfig) -> bool:
    """Whether the model is a soup whose members are chosen on validation images."""
    return is_soup(config) and name_and_options("models", config.model)[1].get("choose") == "greedy"


def _runs(model: PluginValue) -> list[str]:
    name, options = name_and_options("models", model)
    runs = options.get("runs") if name in (ENSEMBLE, SOUP) else None
    return [runs] if isinstance(runs, str) else list(runs or [])


def with_renamed_members(model: PluginValue, renamed: Mapping[str, str]) -> PluginValue:
    """The model with new names for the runs of an ensemble or a soup."""
    runs = _runs(model)
    if not renamed.keys() & set(runs):
        return model
    name, options = name_and_options("models", model)
    return {name: {**options, "runs": [renamed.get(run, run) for run in runs]}}


def untrained(config: VariantConfig) -> VariantConfig:
    """The configuration of an ensemble or a soup without what has no effect on it: its members prepare the
    images themselves, and it is not trained, though images may be set aside to calibrate it, and its
    training images are those of its members. Others are as they were."""
    if not member_runs(config):
        return config
    compute = {key: getattr(config.train, key) for key in COMPUTE_KEYS}
    as_it_is = Input(size=None, normalize="none", crop="none")
    calibration, subset = config.train.calibration, config.train.subset
    train = replace(Train(epochs=0), calibration=calibration, subset=subset, **compute)
    return replace(config, input=as_it_is, train=train)


def variant_seeds(config: VariantConfig, seeds: Sequence[int]) -> list[int]:
    """The seeds of a variant in a study of these seeds: an ensemble or a soup has one run of all seeds."""
    return list(seeds[:1] if member_runs(config) else seeds)


def number_of_runs(configs: Iterable[VariantConfig], seeds: Sequence[int]) -> int:
    """The runs of all variants, of which an ensemble or a soup has one."""
    return sum(len(variant_seeds(each, seeds)) for each in configs)
