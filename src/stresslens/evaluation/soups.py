"""What a soup is made of, in words, and the finding where its members do not average."""

from __future__ import annotations

from stresslens.core.text import counted
from stresslens.evaluation.ensemble_record import EnsembleRecord
from stresslens.evaluation.record import Note

KIND = "mean of weights"

BARRIER = 0.02
"""Nets whose mean is less accurate by more than this do not lie in one basin (Frankle et al. 2020)."""


def basin_findings(record: EnsembleRecord) -> list[Note]:
    """The finding for the record of a soup that is surely more than `BARRIER` below its best member on the
    validation images; an empty list otherwise."""
    found = record.splits.get("validation")
    if not record.is_soup or found is None:
        return []
    best = max(range(len(found.accuracy)), key=lambda number: found.accuracy[number].value)
    gain = found.gain[best]
    if not gain.high < -BARRIER:
        return []
    whole = found.accuracy[best].value + gain.value
    message = (
        f"on {gain.n:,} validation images the soup is right for {whole:.1%}, its best member "
        f"({record.names[best]}) for {found.accuracy[best].value:.1%}: the members do not lie in one basin. "
        "Average runs that were fine-tuned from the same weights; runs that started from different random "
        "weights do not average"
    )
    return [Note(kind=KIND, message=message)]


def soup_in_words(record: EnsembleRecord, images: int | None) -> str:
    """Which members a soup is the mean of, and over how many training images the statistics of its batch
    norm were computed."""
    kept = [step for step in record.steps if step.kept]
    if record.steps:
        left_out = [step for step in record.steps if not step.kept]
        members = ", ".join(
            f"{record.names[step.member]} ({step.accuracy:.1%}{'' if k == 0 else ' with it'})"
            for k, step in enumerate(kept)
        )
        said = (
            f"The mean of the weights of {len(kept)} of {counted(len(record.members), 'member')}, one net. "
            "In the order of their accuracy on validation images, those are kept with which it does not "
            f"fall: {members}."
        )
        if left_out:
            listed = ", ".join(
                f"{record.names[step.member]} ({step.accuracy:.1%} with it)" for step in left_out
            )
            said += f" Left out: {listed}."
    else:
        said = f"The mean of the weights of {counted(len(record.members), 'member')}, one net."
    if record.renewed_layers:
        over = "the training images" if images is None else f"the {images:,} training images"
        what = counted(record.renewed_layers, "layer")
        said += f" The statistics of its {what} of batch norm were computed anew over {over}."
    return said
