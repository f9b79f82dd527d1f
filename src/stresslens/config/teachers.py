"""The teacher of a distillation in a configuration: the run that the objective names."""

from __future__ import annotations

from collections.abc import Mapping

from stresslens.config.registry import name_and_options
from stresslens.config.schema import PluginValue, VariantConfig

NAME = "distillation"


def teacher_run(config: VariantConfig) -> str | None:
    """The name of the run that an objective learns from; None for another objective."""
    name, options = name_and_options("objectives", config.train.objective)
    run = options.get("run") if name == NAME and config.estimator is None else None
    return run if isinstance(run, str) else None


def with_renamed_teacher(objective: PluginValue, renamed: Mapping[str, str]) -> PluginValue:
    """The objective with a new name for the run that it learns from."""
    name, options = name_and_options("objectives", objective)
    run = str(options.get("run"))
    return {NAME: {**options, "run": renamed[run]}} if name == NAME and run in renamed else objective
