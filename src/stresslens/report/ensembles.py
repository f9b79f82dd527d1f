"""The members of an ensemble or a soup beside it, on a run's page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.core.format import percent_sign, plain, points
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.evaluation.ensemble_record import EnsembleRecord, MembersOfSplit
from stresslens.evaluation.soups import soup_in_words
from stresslens.report.load import Run


@dataclass(frozen=True)
class MemberRow:
    """`gain` is the accuracy of the ensemble or the soup minus that of the member."""

    name: str
    model: str
    accuracy: Estimate
    gain: Estimate
    cross_entropy: Estimate


@dataclass(frozen=True)
class EnsembleSection:
    """What the ensemble or the soup (`whole`) is made of and what its members' disagreement says, in
    sentences; a row for each member, and their mean."""

    said: Sequence[str]
    rows: Sequence[MemberRow]
    mean: Estimate | None = None
    gain: Estimate | None = None
    whole: str = "ensemble"


def ensemble_section(run: Run, split: str) -> EnsembleSection | None:
    """The members of an ensemble or a soup on a split; None for another run."""
    record = run.record.ensemble
    if record is None:
        return None
    found = record.splits.get(split)
    known = found is not None and len(found.accuracy) == len(record.members)
    if record.is_soup:
        said = [soup_in_words(record, run.record.data.sizes.get("train"))]
        if found is None or not known:
            return EnsembleSection(said, [], whole="soup")
        said.append(gain_in_words(found, "soup"))
        return EnsembleSection(said, _rows(record, found), found.mean, found.gain_over_mean, "soup")
    models = Counter(member.model for member in record.members)
    kinds = ", ".join(f"{n} {model}" for model, n in models.items())
    what = f"The mean of the {record.average} of {counted(len(record.members), 'member')}: {kinds}."
    if scaled := [member for member in record.members if member.temperature != 1]:
        what += f" The scores of {counted(len(scaled), 'estimator')} are divided by the fitted temperature."
    if found is None or not known:
        return EnsembleSection([what], [])
    said = [what, gain_in_words(found), disagreement_in_words(found)]
    return EnsembleSection(said, _rows(record, found), found.mean, found.gain_over_mean)


def _rows(record: EnsembleRecord, found: MembersOfSplit) -> list[MemberRow]:
    figures = zip(record.names, record.members, found.accuracy, found.gain, found.cross_entropy)
    return [MemberRow(name, member.model, *these) for name, member, *these in figures]


def gain_in_words(found: MembersOfSplit, whole: str = "ensemble") -> str:
    """Whether the ensemble or the soup (`whole`) is better than its members on the average."""
    gain = found.gain_over_mean
    said = f"{points(gain)} points of {gain.n:,} images"
    if gain.low > 0:
        return f"The {whole} is better than its mean member: {said}."
    if gain.high < 0:
        return f"The {whole} is worse than its mean member: {said}."
    return f"The {whole} and its mean member are not distinguishable: {said}."


def disagreement_in_words(found: MembersOfSplit) -> str:
    """How much the members disagree, and how well that finds errors."""
    said = (
        f"The members do not all give the same class for {percent_sign(found.disagreement)} of the images; "
        f"the mutual information of class and member is {plain(found.mutual_information)} nats."
    )
    if not math.isfinite(found.errors_by_information.value):
        return said
    return (
        f"{said} It ranks the ensemble's errors before its right answers with an AUROC of "
        f"{plain(found.errors_by_information)}; the probability of the answer alone does with "
        f"{plain(found.errors_by_confidence)}."
    )
