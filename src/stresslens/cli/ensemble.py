"""`stresslens ensemble`: runs that answer together, or the mean of their weights, as a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import Device, FailOver, FailUnder, Json, Out, Quiet, Verbose
from stresslens.cli.run import carry_out_study


def ensemble(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or of variants, which stand for all their seeds."),
    ],
    average: Annotated[
        str,
        typer.Option(
            "--average",
            autocompletion=words("probabilities", "logits", "weights", "weights-greedy"),
            help="probabilities or logits of the members; weights or weights-greedy for one net (a soup).",
        ),
    ] = "probabilities",
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the run and its folder; default: that of the first run's variant.",
            show_default=False,
        ),
    ] = None,
    out: Out = Path("runs"),
    device: Device = None,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Combine trained runs into an ensemble.

    The members answer together: the mean of their probabilities (deep ensembles), or of their logits. The
    ensemble is a run of its own in OUT/ensembles, with copies of the members' weights, so that it is
    evaluated, attacked, explained, compared and exported like any other. Its page compares it with its
    members, and says how much they disagree.

    With --average weights the run holds one net instead, of the mean of the members' weights (a model soup),
    for runs of one architecture that were fine-tuned from the same weights. weights-greedy keeps the members
    with which the accuracy on validation images does not fall.
    """
    from stresslens.cli import gates
    from stresslens.study.ensembles import ensemble_study

    study = ensemble_study(runs, average=average, name=name)
    limits = gates.parsed(fail_under or [], fail_over or [])
    carry_out_study(study, out, None, device, None, False, limits, as_json, quiet, verbose)
