"""`stresslens evaluate`: scores a run on one of its splits."""

from __future__ import annotations

from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import DataNow, FailUnder, Json, RunArgument, Trust
from stresslens.cli.terminal import print_json, print_scores
from stresslens.core.errors import ConfigError


def evaluate(
    run: RunArgument,
    split: Annotated[
        str,
        typer.Option(
            "--split", autocompletion=words("train", "validation", "test"), help="train, validation or test."
        ),
    ] = "test",
    data: DataNow = None,
    trust: Trust = False,
    fail_under: FailUnder = None,
    as_json: Json = False,
) -> None:
    """Score a trained run on one of its splits.

    Every score has its n and its interval. A read of the test split is counted in the run's record.
    The run's saved predictions are made anew; with the validation split also likeness.npz, which
    marks out-of-distribution images, where that file is missing or damaged.
    """
    from stresslens.cli import gates
    from stresslens.core.run_folder import RunFolder
    from stresslens.study.predict_stage import evaluate_again

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split {split}: expected train, validation or test")
    asked = gates.parsed(fail_under or [])
    record = evaluate_again(RunFolder(run), split, trust=trust, data=data)
    scores = record.scores[split]
    if as_json:
        print_json({"run": str(run), "split": split, "scores": record.as_json()["scores"][split]})
    else:
        print_scores(scores, f"{run}: {split}")
    gates.check(asked, {str(run): scores})
