"""What somebody concluded from a contrast, held against what the study finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.core.files import UnreadableRun, read_json

FINDINGS = {
    "holds": "holds",
    "opposite": "is contradicted",
    "artefact": "is an artefact of the protocol",
    "partly": "is in part an artefact of the protocol",
    "noise": "is inside noise",
}


def judged_claims(
    claims: Sequence[Mapping[str, Any]], contrasts: Sequence[Mapping[str, Any]], runs: Path
) -> list[dict[str, Any]]:
    """Each claim, that the second run of a contrast's pairs is better, with what is found of it
    pair by pair, and one sentence.

    A pair's difference is an artefact when a study that repeats the claim's own protocol
    (`protocol`, in the same folder of runs) finds it really better, this one does not, and what
    that one found lies beyond this one's interval; in part, where this interval still reaches half
    of it.
    """
    own = [
        [c for c in contrasts if c["contrast"] == claim["contrast"] and [c["a"], c["b"]] in claim["pairs"]]
        for claim in claims
    ]
    return [_judged(claim, pairs, runs) for claim, pairs in zip(claims, own)]


def _judged(claim: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], runs: Path) -> dict[str, Any]:
    there = _differences(runs, claim["protocol"], claim["contrast"])
    found = [_finding(pair, there.get((pair["a"], pair["b"]))) for pair in pairs]
    counts = {kind: found.count(kind) for kind in FINDINGS if kind in found}
    several = len(pairs) > 1
    parts = [
        f"{FINDINGS[kind]}{f' for {n} of {len(pairs)} pairs' if several else ''}"
        for kind, n in counts.items()
    ]
    made = [
        (pair, there[pair["a"], pair["b"]]["value"])
        for pair, kind in zip(pairs, found)
        if kind in ("artefact", "partly")
    ]
    artefacts = [
        f"{p['a']} to {p['b']}: {_points(value)} there, {_with_interval(p['difference'])} here"
        for p, value in made
    ]
    sentence = "; it ".join(parts) + (f" ({'; '.join(artefacts)})" if artefacts else "")
    of_weights = (
        "; one seed each, so of these weights"
        if any(pair["difference"].get("unit") == "images" for pair in pairs)
        else ""
    )
    said = f"It {sentence}{of_weights}." if parts else "Its runs have not been compared."
    return {"contrast": claim["contrast"], "claim": claim["claim"], "pairs": found, "sentence": said}


def _finding(pair: Mapping[str, Any], there: Mapping[str, Any] | None) -> str:
    here = pair["difference"]
    if pair["real"]:
        return "holds" if here["value"] > 0 else "opposite"
    if there is None or not there["real"] or there["value"] <= here["high"]:
        return "noise"
    return "partly" if here["high"] >= there["value"] / 2 else "artefact"


def _differences(runs: Path, study: str | None, contrast: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What another study found of the same contrast, by pair; nothing where it was not run."""
    if study is None:
        return {}
    try:
        comparison = read_json(runs / study / "comparison.json")
    except UnreadableRun:
        return {}
    of_contrast = [pair for pair in comparison.get("contrasts", []) if pair["contrast"] == contrast]
    return {
        (pair["a"], pair["b"]): {"value": pair["difference"]["value"], "real": pair["real"]}
        for pair in of_contrast
    }


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f} points"


def _with_interval(estimate: Mapping[str, Any]) -> str:
    low, high = (round(100 * estimate[end], 1) + 0.0 for end in ("low", "high"))
    return f"{round(100 * estimate['value'], 1) + 0.0:.1f} ({low:.1f} to {high:.1f})"
