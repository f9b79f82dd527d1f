"""Provenance of the results: data and the findings of its check, environment, configuration."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.core.types import Finding
from stresslens.evaluation.record import DataRecord
from stresslens.metrics.leaked_copies import WITHOUT, without_copies_in_words
from stresslens.report.load import Run, StudyFolder

ITEMS = 12
"""Largest number of files or images that are named under a finding."""
CONFIG_BYTES = 300_000

_RANK = {("sign", "serious"): 0, ("sign", "minor"): 1, ("sign", "none"): 2}


@dataclass(frozen=True)
class DataCard:
    """A data set, the variants trained on it, and the number of its divisions."""

    variants: Sequence[str]
    facts: DataRecord
    shape: tuple[int, int, int] | None
    classes: Sequence[str]
    divisions: int
    findings: Sequence[Finding]
    without_copies: Sequence[str]


def data_cards(runs: Sequence[Run]) -> list[DataCard]:
    """Every different data set once. The folds of one data set are one card, with the findings of
    all."""
    by_data_set: dict[object, list[Run]] = {}
    for run in runs:
        data = run.record.data
        if data.name:
            identity = (
                (data.name, sum(data.sizes.values())) if data.division else (data.name, data.fingerprint)
            )
            by_data_set.setdefault(identity, []).append(run)
    cards = []
    for members in by_data_set.values():
        data = members[0].record.data
        distinct = dict.fromkeys(f for run in members for f in run.record.data.findings)
        findings = sorted(
            distinct, key=lambda f: _RANK.get((f.status, f.severity), 4 if f.status == "no sign" else 3)
        )
        names = list(dict.fromkeys(run.name for run in members))
        divisions = len({run.record.data.fingerprint for run in members}) if data.division else 1
        first = members[0]
        without = _without_copies(members)
        cards.append(DataCard(names, data, first.record.shape, first.classes, divisions, findings, without))
    return cards


def _without_copies(runs: Sequence[Run]) -> list[str]:
    """What copies do to the accuracy of one run, by split; of several, where the figures are."""
    if len(runs) > 1:
        known = any(WITHOUT in named for run in runs for named in run.record.scores.values())
        return ["The accuracies without these copies are under Results, in “More scores”."] if known else []
    scores = runs[0].record.scores
    return [text for split in scores if (text := without_copies_in_words(scores[split], split))]


NAMES = {
    "python": "Python",
    "platform": "Operating system",
    "processor_count": "Processor cores",
    "packages": "Package",
    "plugins": "Plug-ins of",
    "command": "Command",
    "commit": "Commit of the working folder",
    "device": "Device",
    "precision": "Precision",
    "threads": "Threads",
    "memory_format": "Memory format",
    "compile": "Forward pass compiled",
    "recompute": "Activations computed again",
    "processes": "Processes of a run",
    "backend": "Backend of the processes",
    "piece_bytes": "Bytes of a piece of images",
}
"""The keys of environment.json in words; a key that is not here is shown as it is."""
UNKNOWN = ("null", "")


def environment_rows(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What is known of the machine, in words; if runs differ, up to four of the values, each with the
    number of its runs."""
    values: dict[str, Counter[str]] = {}
    for run in runs:
        for key, value in run.environment.items():
            if value not in UNKNOWN:
                values.setdefault(key, Counter())[value] += 1
    rows = []
    for key, counted in values.items():
        several = [f"{value} ({n} run{'s' if n > 1 else ''})" for value, n in list(counted.items())[:4]]
        more = [f"and {len(counted) - 4} more"] if len(counted) > 4 else []
        rows.append((_in_words(key), ", ".join(several + more) if len(counted) > 1 else next(iter(counted))))
    return rows


def _in_words(key: str) -> str:
    """`packages.torch` as `Package torch`."""
    first, _, rest = key.partition(".")
    return " ".join(filter(None, [NAMES.get(first, first), rest]))


def config(run: Run) -> str:
    """The resolved configuration, cut if it is very long."""
    text = run.config
    return (
        text
        if len(text) <= CONFIG_BYTES
        else text[:CONFIG_BYTES] + "\n… (cut here; the full text is in config.yaml)"
    )


def expectation(study: StudyFolder) -> list[tuple[bool, str]]:
    """The head comment of the study file without its command, a file's name and the line for editors:
    paragraphs, and blocks in columns (True), which keep their layout."""
    lines = study.file.head.splitlines() if study.file else []
    lines = [line for line in lines if not line.strip().startswith("yaml-language-server:")]
    first = lines[0].strip("# ") if lines else ""
    if first.startswith("stresslens ") or re.fullmatch(r"\S+\.ya?ml", first):
        lines = lines[1:]
    blocks: list[tuple[bool, list[str]]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        columns = "   " in line.rstrip() or line.startswith("  ")
        if fresh or blocks[-1][0] != columns:
            blocks.append((columns, []))
        blocks[-1][1].append(line)
        fresh = False
    return [(columns, ("\n" if columns else " ").join(block)) for columns, block in blocks]
