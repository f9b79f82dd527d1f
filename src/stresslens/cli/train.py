"""`stresslens train`: trains one model without a study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import plugins_of
from stresslens.cli.data import data_value
from stresslens.cli.options import (
    AverageOver,
    DataSet,
    Device,
    DryRun,
    FailOver,
    FailUnder,
    Json,
    Out,
    Overrides,
    Quiet,
    Seed,
    Verbose,
)
from stresslens.cli.rate_range import find_rate
from stresslens.cli.run import carry_out_study
from stresslens.core.errors import ConfigError


# long: the options of a command are spelled out, one after the other
def train(
    data: DataSet,
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=plugins_of("models", "estimators"),
            help="A model or an estimator: simple_cnn, knn, …, or {mlp: {widths: [32, 16]}}.",
        ),
    ],
    overrides: Overrides = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the run and its folder; default: run, DATA, MODEL and the overrides.",
            show_default=False,
        ),
    ] = None,
    out: Out = Path("runs"),
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            help="A tracker: tensorboard, {wandb: {project: x}}, …",
            autocompletion=plugins_of("trackers"),
        ),
    ] = None,
    tta: AverageOver = None,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Test learning rates, suggest one over 3 seeds, and train nothing."),
    ] = False,
    device: Device = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train one model on one data set.

    This is a study of a single run, without a study file. It also fits an estimator (knn, hog_svm, …).
    """
    from stresslens.cli import gates
    from stresslens.config import registry, study_file
    from stresslens.config.run_names import data_and_model, name_in_words
    from stresslens.config.validation import applies_to_estimators
    from stresslens.config.yaml_source import parse_value, typed_mistakes

    what = parse_value(model)
    tracked = {"track": [parse_value(tracker) for tracker in track]} if track else {}
    averaged = {"evaluation": {"tta": tta}} if tta else {}
    kind = registry.model_or_estimator(what)
    idle = [
        text
        for text in overrides or []
        if kind == "estimator" and not applies_to_estimators(text.partition("=")[0])
    ]
    if idle:
        raise ConfigError(
            f"{idle[0]}: means nothing to the estimator "
            f"{registry.name_and_options('estimators', what)[0]}; leave it out"
        )
    with typed_mistakes():
        found = data_value(data)
        own_name = name or ",".join(["run", *data_and_model(found, what)])
        values = {"data": found, kind: what, "runs": {own_name: {}}, **tracked, **averaged}
        described = study_file.expand_study(values, overrides or [], name="train", base=Path.cwd())
        is_single = len(described.variants) == 1  # else a grid of the command line, whose names stay
        if is_single and name is None:
            told = next(iter(described.overrides.values()), [])
            described = study_file.known_as(described, name_in_words(found, what, told), kept="run")
        elif is_single and name is not None:
            described = study_file.named_alone(described, name)
    if find_lr:
        find_rate(described, out, device, seed, as_json)
        return
    limits = gates.parsed(fail_under or [], fail_over or [])
    carry_out_study(described, out, None, device, seed, dry_run, limits, as_json, quiet, verbose)
