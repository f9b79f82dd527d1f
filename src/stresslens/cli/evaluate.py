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
    tta: Annotated[
        list[str] | None,
        typer.Option(
            "--tta",
            help="Test-time augmentation: average the probabilities over these views too; flip, "
            "vertical_flip, quarter_turns or five_crops; may be repeated.",
            show_default=False,
        ),
    ] = None,
    fail_under: FailUnder = None,
    as_json: Json = False,
) -> None:
    """Score a trained run on one of its splits.

    Every score has its n and its interval. A read of the test split is counted in the run's record.
    The run's saved predictions are made anew; with the validation split also likeness.npz, which
    marks out-of-distribution images, where that file is missing or damaged. With --tta the scores are
    those of averaged probabilities, beside which the record keeps those of the image alone.
    """
    from stresslens.cli import gates
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.averaged_views import averaged_in_words, score_averaged
    from stresslens.evaluation.finished_run import finished
    from stresslens.metrics.leaked_copies import without_copies_in_words
    from stresslens.study.predict_stage import evaluate_again

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split {split}: expected train, validation or test")
    asked = gates.parsed(fail_under or [])
    if tta:
        with finished(RunFolder(run), split, trust=trust, data=data) as (model, found, record):
            averaged = score_averaged(RunFolder(run), model, found, record, tta, [split])
        scores, document = averaged.scores[split], averaged.as_json()
    else:
        record = evaluate_again(RunFolder(run), split, trust=trust, data=data)
        scores, document = record.scores[split], record.as_json()
    if as_json:
        extra = {"tta": document["views"], "gain": document["gain"][split]} if tta else {}
        print_json({"run": str(run), "split": split, "scores": document["scores"][split], **extra})
    else:
        print_scores(scores, f"{run}: {split}")
        if copies := without_copies_in_words(scores, split):
            print(copies)
        if tta:
            print(averaged_in_words(averaged))
    gates.check(asked, {str(run): scores})
