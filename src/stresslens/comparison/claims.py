"""Claims of a study file about its contrasts, checked against the measured differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stresslens.comparison.margins import in_points
from stresslens.comparison.schema import (
    ComparisonFile,
    Contrast,
    JudgedClaim,
    MarginVerdict,
    RobustContrast,
)
from stresslens.comparison.tested_run import variants_of
from stresslens.config.study_record import StatedClaim, read_study_record
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import enumeration
from stresslens.core.types import Estimate
from stresslens.evaluation.record import ALL_EPOCHS, TrainingRecord, read_record

NAMED = 6
"""Largest number of variants that a sentence names."""

FINDINGS = {
    "holds": "holds",
    "opposite": "is contradicted",
    "artefact": "is an artefact of the protocol",
    "partly": "is in part an artefact of the protocol",
    "seeds": "is not tested, because the seeds are too few",
    "noise": "is inside noise",
    "unshown": "is not shown",
}
"""What is said of a claim, by what was found for a pair. Only sameness is `unshown`."""


def study_claims(folder: Path, compared: ComparisonFile) -> list[JudgedClaim]:
    """The claims of a study's study.json, judged by its contrasts."""
    study = read_study_record(folder)
    robustness = [pair for pair in compared.robustness if isinstance(pair, RobustContrast)]
    return judged_claims(
        study.claims,
        compared.contrasts,
        folder.parent,
        own_names=study.own_names,
        robustness=robustness,
        unfinished=variants_best_last(folder) if study.claims else (),
    )


def variants_best_last(folder: Path) -> list[str]:
    """The variants of a study whose best epoch is the last one of the setting `epochs`, in more than
    half of their finished runs. Validation chose it, so more epochs may give more."""
    training: dict[Path, TrainingRecord] = {}

    def has_results(run: RunFolder) -> bool:
        record = read_record(run) if run.record.exists() else None
        if record is None or not record.usable:
            return False
        training[run.path] = record.training
        return True

    found = []
    for name, seeds in variants_of(folder, has_results).items():
        trained = [training[each.path] for each in seeds.values()]
        last = [
            each.stopped == ALL_EPOCHS and each.select != "last" and each.epochs == each.chosen_epoch
            for each in trained
            if each.epochs
        ]
        if 2 * sum(last) > len(last):
            found.append(name)
    return found


def judged_claims(
    claims: Sequence[StatedClaim],
    contrasts: Sequence[Contrast],
    runs: Path,
    *,
    own_names: Mapping[str, str] | None = None,
    robustness: Sequence[Contrast] = (),
    unfinished: Collection[str] = (),
) -> list[JudgedClaim]:
    """Judge each claim that the second run of a contrast's pairs is better: a finding for each
    pair, and one sentence. Claims of sameness are judged by the margin that the pairs were asked about.
    Claims of robust accuracy are judged by the contrasts `robustness`;
    where there are none, they are left out.

    A difference is an artefact of the protocol when three things hold: a study that repeats the
    claim's own protocol (`protocol`, in the same folder of runs) finds a real improvement, this
    study does not, and the other study's difference lies beyond this study's interval. It is partly
    an artefact if this study's interval reaches at least half of the other study's difference.
    Variants of the two studies correspond if their own names are equal: `own_names` gives the name
    of a folder without the overrides of the command line. What is not found is said, and which of
    the variants are `unfinished`: were best in their last epoch.
    """
    known = {"accuracy": contrasts, "sameness": contrasts, "robustness": robustness}
    found = []
    for claim in claims:
        if claim.of == "robustness" and not robustness:
            continue
        pairs = [c for c in known[claim.of] if c.contrast == claim.contrast and (c.a, c.b) in claim.pairs]
        judged = (
            _judged_sameness(claim, pairs)
            if claim.of == "sameness"
            else _judged(claim, pairs, runs, own_names or {})
        )
        judged.sentence += _best_last([name for name in _variants(pairs) if name in unfinished])
        found.append(judged)
    return found


def _judged_sameness(claim: StatedClaim, pairs: Sequence[Contrast]) -> JudgedClaim:
    """The claim that the two of each pair are the same within the margin that they were asked about."""
    asked = [(pair, pair.same) for pair in pairs if pair.same is not None]
    findings = [_sameness(same) for _, same in asked]
    text = "Its runs have not been compared."
    if asked:
        plans = {
            f"{pair.a} and {pair.b}: {same.plan}" if len(asked) > 1 else same.plan: None
            for pair, same in asked
            if same.plan is not None
        }
        sentence = _counted(findings) + (f" ({'; '.join(plans)})" if plans else "")
        margins = enumeration(list(dict.fromkeys(in_points(same.margin) for _, same in asked)))
        text = f"Within {margins} it {sentence}{_of_weights(pairs)}."
    return JudgedClaim(contrast=claim.contrast, claim=claim.claim, of=claim.of, pairs=findings, sentence=text)


def _sameness(same: MarginVerdict) -> str:
    """The finding for a pair: contradicted if its interval lies outside the margin entirely."""
    if same.shown:
        return "holds"
    if (seen := same.interval) is not None and (seen.low > same.margin or seen.high < -same.margin):
        return "opposite"
    return "seeds" if same.too_few_seeds else "unshown"


def _counted(findings: Sequence[str]) -> str:
    """`holds for 2 of 3 pairs; it is inside noise for 1 of 3 pairs`."""
    counts = {kind: findings.count(kind) for kind in FINDINGS if kind in findings}
    several = len(findings) > 1
    return "; it ".join(
        f"{FINDINGS[kind]}{f' for {n} of {len(findings)} pairs' if several else ''}"
        for kind, n in counts.items()
    )


def _of_weights(pairs: Sequence[Contrast]) -> str:
    one_seed = any(pair.difference.unit == "images" for pair in pairs)
    return "; one seed each, so of these weights" if one_seed else ""


def _judged(
    claim: StatedClaim,
    pairs: Sequence[Contrast],
    runs: Path,
    own_names: Mapping[str, str],
) -> JudgedClaim:
    protocol = _protocol(runs, claim.protocol, claim.contrast)
    there = [protocol.find(pair, own_names) for pair in pairs]
    findings = [_finding(pair, other) for pair, other in zip(pairs, there)]
    artefacts = [
        f"{pair.a} to {pair.b}: {_points(other.difference.value)} there, "
        f"{_with_interval(pair.difference)} here"
        for pair, kind, other in zip(pairs, findings, there)
        if other is not None and kind in ("artefact", "partly")
    ]
    sentence = _counted(findings) + (f" ({'; '.join(artefacts)})" if artefacts else "")
    text = f"It {sentence}{_of_weights(pairs)}." if pairs else "Its runs have not been compared."
    unknown = [
        f"{pair.a} to {pair.b}"
        for pair, kind, other in zip(pairs, findings, there)
        if kind == "noise" and not other
    ]
    if claim.protocol is not None and unknown:
        missing = protocol.missing or f"does not compare {' and '.join(unknown)}"
        text += (
            f" Whether its protocol made the difference is not known: the study {claim.protocol} {missing}."
        )
    return JudgedClaim(contrast=claim.contrast, claim=claim.claim, of=claim.of, pairs=findings, sentence=text)


def _variants(pairs: Sequence[Contrast]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))


def _best_last(variants: Sequence[str]) -> str:
    if not variants:
        return ""
    if len(variants) == 1:
        return f" {variants[0]} was best in its last epoch: more epochs may change this."
    return f" {enumeration(variants, NAMED)} were best in their last epochs: more epochs may change this."


def _finding(pair: Contrast, by_protocol: Contrast | None) -> str:
    ours = pair.difference
    if pair.real:
        return "holds" if ours.value > 0 else "opposite"
    if by_protocol is None or not by_protocol.real or by_protocol.difference.value <= ours.high:
        return "seeds" if pair.too_few_seeds else "noise"
    return "partly" if ours.high >= by_protocol.difference.value / 2 else "artefact"


@dataclass(frozen=True)
class _Protocol:
    """Another study's contrast of the same name, by pairs of folders and by pairs of own names.

    `missing` says what of it was not found; empty if it was found.
    """

    by_folder: Mapping[tuple[str, str], Contrast]
    by_name: Mapping[tuple[str, str], Contrast]
    missing: str = ""

    def find(self, pair: Contrast, own_names: Mapping[str, str]) -> Contrast | None:
        """The corresponding pair: the one of equal folders, or else of equal own names."""
        names = own_names.get(pair.a, pair.a), own_names.get(pair.b, pair.b)
        return self.by_folder.get((pair.a, pair.b)) or self.by_name.get(names)


def _protocol(runs: Path, study: str | None, contrast: str) -> _Protocol:
    if study is None:
        return _Protocol({}, {})
    folder = runs / study
    if not folder.is_dir():
        return _Protocol({}, {}, f"was not found in the folder {runs}; run it there")
    try:
        comparison = ComparisonFile.read(folder / "comparison.json")
        own_names = read_study_record(folder).own_names if (folder / "study.json").is_file() else {}
    except UnreadableRun:
        return _Protocol({}, {}, f"has no comparison in {folder}; finish it there")
    pairs = [pair for pair in comparison.contrasts if pair.contrast == contrast]
    if not pairs:
        return _Protocol({}, {}, f"has no contrast {contrast!r} in {folder}")
    named: dict[tuple[str, str], Contrast] = {}
    for pair in pairs:  # those of the last command come first
        named.setdefault((own_names.get(pair.a, pair.a), own_names.get(pair.b, pair.b)), pair)
    return _Protocol({(pair.a, pair.b): pair for pair in pairs}, named)


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f} points"


def _with_interval(estimate: Estimate) -> str:
    value, low, high = (round(100 * x, 1) + 0.0 for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
