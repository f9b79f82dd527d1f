"""`stresslens evaluate --ood`: its options, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresslens.cli.completion import plugins_of
from stresslens.cli.terminal import print_table
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.evaluation.ood_record import OODRecord

OODSets = Annotated[
    list[str] | None,
    typer.Option(
        "--ood",
        help="Out-of-distribution images: a data set, a folder, uniform_noise, gaussian_noise, blurred.",
        autocompletion=plugins_of("datasets"),
    ),
]
Detectors = Annotated[
    list[str] | None,
    typer.Option(
        "--detector",
        help="With --ood: a detector (energy, {knn: {k: 10}}, predict); default: all.",
        autocompletion=plugins_of("detectors"),
    ),
]


def check_ood(
    run: Path,
    split: str,
    sets: Sequence[str] | None,
    detectors: Sequence[str] | None,
    *,
    tta: Sequence[str] | None,
    find_slices: bool,
) -> None:
    """Raises ConfigError where --ood and other options do not go together."""
    from stresslens.evaluation.prediction_rows import is_prediction_file

    if detectors and not sets:
        raise ConfigError("--detector is of --ood; name a set of images with --ood")
    if not sets:
        return
    if is_prediction_file(run):
        raise ConfigError("--ood needs a model, and a file of predictions has none; leave it out")
    if tta or find_slices:
        other = "--tta" if tta else "--find-slices"
        raise ConfigError(f"--ood is of the image alone, without {other}; give one of them")
    if split == "train":
        raise ConfigError("--ood compares images with test or validation images, not with those of training")


def scored_ood(
    run: Path, split: str, sets: Sequence[str], detectors: Sequence[str], *, data: Any, trust: bool
) -> OODRecord:
    """The detectors on the sets, beside a split of the run; its record keeps them."""
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.finished_run import finished
    from stresslens.evaluation.ood_detectors import score_ood
    from stresslens.evaluation.ood_sets import ood_set

    folder, chosen = RunFolder(run), [parse_value(each) for each in detectors]
    with finished(folder, split, trust=trust, data=data) as (model, found, record):
        named = [
            ood_set(parse_value(each) if each.startswith("{") else each, found, trust=trust) for each in sets
        ]
        return score_ood(folder, model, found, record, named, split=split, detectors=chosen, trust=trust)


def print_ood(found: OODRecord, sets: Sequence[str]) -> None:
    """Print a table of the detectors for each set, with its verdict, and how it was measured."""
    from stresslens.core.format import percent, plain

    for name, of_set in found.sets.items():
        rows = [
            [
                detector,
                plain(scores.auroc),
                plain(scores.aupr),
                percent(scores.fpr95) if scores.fpr95 else "–",
                percent(scores.kept) if scores.kept else "–",
            ]
            for detector, scores in of_set.ranked
        ]
        columns = ["detector", "AUROC", "AUPR", "pass as in distribution, %", f"{found.split} passes, %"]
        print_table(columns, rows, f"{name}: {of_set.n:,} of {of_set.images:,} images")
        print(f"{of_set.verdict}.")
        if of_set.note:
            print(f"{of_set.note}.")
    for name, why in found.refused.items():
        print(f"{name}: not possible: {why}.")
    threshold = (
        f"the threshold passes 95 % of {found.validation:,} validation images"
        if found.validation
        else ("no validation images for a threshold")
    )
    print(f"{found.n:,} {found.split} images; fitted on {found.fitted_on:,} training images; {threshold}.")
