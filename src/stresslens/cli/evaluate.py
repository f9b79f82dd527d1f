"""`stresslens evaluate`: scores a run on one of its splits."""

from __future__ import annotations

from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import FailUnder, Json, RunArgument, Trust
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
    from stresslens.evaluation.finished_run import data_of
    from stresslens.evaluation.record import read_record, write_record
    from stresslens.evaluation.saved_model import as_computed, open_model
    from stresslens.study import predict_stage

    folder = RunFolder(run)
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split {split}: expected train, validation or test")
    asked = gates.parsed(fail_under or [])
    read_record(folder)
    with folder.locked():
        record = read_record(folder)
        model = as_computed(open_model(folder, trust=trust), folder)
        data = data_of(folder, trust=trust)
        if data.fingerprint != record.data.fingerprint:
            raise ConfigError(
                f"{run}: the data set has changed since the run was trained, so its figures stay as they are"
            )
        if split not in data.splits:
            raise ConfigError(
                f"{data.name} has no {split} split in this run; it has {', '.join(data.splits)}"
            )
        predict_stage.predict_again(folder, model, data, split, record)
        write_record(folder, record)
    scores = record.scores[split]
    if as_json:
        print_json({"run": str(run), "split": split, "scores": record.as_json()["scores"][split]})
    else:
        print_scores(scores, f"{run}: {split}")
    gates.check(asked, {str(run): scores})
