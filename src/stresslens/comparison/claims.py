"""Claims of a study file about its contrasts, checked against the measured differences."""

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
    """Judge each claim that the second run of a contrast's pairs is better: a finding for each
    pair, and one sentence.

    A difference is an artefact of the protocol when three things hold: a study that repeats the
    claim's own protocol (`protocol`, in the same folder of runs) finds a real improvement, this
    study does not, and the other study's difference lies beyond this study's interval. It is partly
    an artefact if this study's interval reaches at least half of the other study's difference.
    """
    pairs_of_claims = [
        [c for c in contrasts if c.contrast == claim.contrast and (c.a, c.b) in claim.pairs]
        for claim in claims
    ]
    return [_judged(claim, pairs, runs) for claim, pairs in zip(claims, pairs_of_claims)]


def _judged(claim: StatedClaim, pairs: Sequence[Contrast], runs: Path) -> JudgedClaim:
    by_protocol = _contrasts_of(runs, claim.protocol, claim.contrast)
    findings = [_finding(pair, by_protocol.get((pair.a, pair.b))) for pair in pairs]
    counts = {kind: findings.count(kind) for kind in FINDINGS if kind in findings}
    several = len(pairs) > 1
    parts = [
        f"{FINDINGS[kind]}{f' for {n} of {len(pairs)} pairs' if several else ''}"
        for kind, n in counts.items()
    ]
    artefacts = [
        f"{pair.a} to {pair.b}: {_points(by_protocol[pair.a, pair.b].difference.value)} there, "
        f"{_with_interval(pair.difference)} here"
        for pair, kind in zip(pairs, findings)
        if kind in ("artefact", "partly")
    ]
    sentence = "; it ".join(parts) + (f" ({'; '.join(artefacts)})" if artefacts else "")
    of_weights = (
        "; one seed each, so of these weights"
        if any(pair.difference.unit == "images" for pair in pairs)
        else ""
    )
    text = f"It {sentence}{of_weights}." if parts else "Its runs have not been compared."
    return JudgedClaim(contrast=claim.contrast, claim=claim.claim, pairs=findings, sentence=text)


def _finding(pair: Contrast, by_protocol: Contrast | None) -> str:
    ours = pair.difference
    if pair.real:
        return "holds" if ours.value > 0 else "opposite"
    if by_protocol is None or not by_protocol.real or by_protocol.difference.value <= ours.high:
        return "noise"
    return "partly" if ours.high >= by_protocol.difference.value / 2 else "artefact"


def _contrasts_of(runs: Path, study: str | None, contrast: str) -> Mapping[tuple[str, str], Contrast]:
    """Another study's contrast of the same name, by pair; empty if that study has no comparison."""
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
