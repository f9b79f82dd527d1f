"""What somebody concluded from a contrast, held against what the study finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stresslens.comparison.schema import ComparisonFile, Contrast, JudgedClaim
from stresslens.config.study_record import StatedClaim
from stresslens.core.files import UnreadableRun
from stresslens.core.types import Estimate

FINDINGS = {
    "holds": "holds",
    "opposite": "is contradicted",
    "artefact": "is an artefact of the protocol",
    "partly": "is in part an artefact of the protocol",
    "noise": "is inside noise",
}


def judged_claims(
    claims: Sequence[StatedClaim], contrasts: Sequence[Contrast], runs: Path
) -> list[JudgedClaim]:
    """Each claim, that the second run of a contrast's pairs is better, with what is found of it
    pair by pair, and one sentence.

    A pair's difference is an artefact when a study that repeats the claim's own protocol
    (`protocol`, in the same folder of runs) finds it really better, this one does not, and what
    that one found lies beyond this one's interval; in part, where this interval still reaches half
    of it.
    """
    own = [
        [c for c in contrasts if c.contrast == claim.contrast and (c.a, c.b) in claim.pairs]
        for claim in claims
    ]
    return [_judged(claim, pairs, runs) for claim, pairs in zip(claims, own)]


def _judged(claim: StatedClaim, pairs: Sequence[Contrast], runs: Path) -> JudgedClaim:
    there = _contrasts_of(runs, claim.protocol, claim.contrast)
    found = [_finding(pair, there.get((pair.a, pair.b))) for pair in pairs]
    counts = {kind: found.count(kind) for kind in FINDINGS if kind in found}
    several = len(pairs) > 1
    parts = [
        f"{FINDINGS[kind]}{f' for {n} of {len(pairs)} pairs' if several else ''}"
        for kind, n in counts.items()
    ]
    artefacts = [
        f"{pair.a} to {pair.b}: {_points(there[pair.a, pair.b].difference.value)} there, "
        f"{_with_interval(pair.difference)} here"
        for pair, kind in zip(pairs, found)
        if kind in ("artefact", "partly")
    ]
    sentence = "; it ".join(parts) + (f" ({'; '.join(artefacts)})" if artefacts else "")
    of_weights = (
        "; one seed each, so of these weights"
        if any(pair.difference.unit == "images" for pair in pairs)
        else ""
    )
    said = f"It {sentence}{of_weights}." if parts else "Its runs have not been compared."
    return JudgedClaim(contrast=claim.contrast, claim=claim.claim, pairs=found, sentence=said)


def _finding(pair: Contrast, there: Contrast | None) -> str:
    here = pair.difference
    if pair.real:
        return "holds" if here.value > 0 else "opposite"
    if there is None or not there.real or there.difference.value <= here.high:
        return "noise"
    return "partly" if here.high >= there.difference.value / 2 else "artefact"


def _contrasts_of(runs: Path, study: str | None, contrast: str) -> Mapping[tuple[str, str], Contrast]:
    """What another study found of the same contrast, by pair; nothing where it was not run."""
    if study is None:
        return {}
    try:
        comparison = ComparisonFile.read(runs / study / "comparison.json")
    except UnreadableRun:
        return {}
    return {(pair.a, pair.b): pair for pair in comparison.contrasts if pair.contrast == contrast}


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f} points"


def _with_interval(estimate: Estimate) -> str:
    value, low, high = (round(100 * x, 1) + 0.0 for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
