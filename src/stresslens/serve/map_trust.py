"""Whether a run's maps of an explainer can be trusted: what the checks say that its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from stresslens.core.errors import StresslensError
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.explanation.map_file import ExplanationFile

CHECKS = {
    "deletion": "covering the highest pixels first lowers the score sooner than random ones by",
    "insertion": "uncovering them first raises it sooner by",
    "sensitivity": "noise that cannot be seen moves the map by a share of",
}
"""The checks that are told, in words that a number follows."""


class MapTrust(NamedTuple):
    """`good`: the maps were checked, and failed no check."""

    good: bool
    said: str


def trust_of_maps(run: Path, explainer: str) -> MapTrust:
    """From the explanations in the run's folder with the explainer's default options: those of most images,
    the last of these."""
    checked = []
    for path in sorted(run.glob(f"explanations/{explainer}-*/result.json")):
        try:
            found = ExplanationFile.read(path)
        except StresslensError:
            continue
        if found.explainer == explainer and not found.options and found.quality is not None:
            checked.append(found)
    if not checked:
        return MapTrust(
            False,
            f"Not checked for this run, so nobody knows whether this map explains the model. "
            f"`stresslens explain {run} --explainer {explainer} --check` checks it.",
        )
    best = max(checked, key=lambda each: len(each.images))
    assert best.quality is not None
    images = counted(len(best.images), f"{best.split} image")
    failed = list(best.quality.failed)
    if failed:
        return MapTrust(False, f"Do not trust it: checked on {images}, {'; '.join(failed)}.")
    told = [
        f"{words} {_number(best.quality.checks[name])}"
        for name, words in CHECKS.items()
        if name in best.quality.checks
    ]
    return MapTrust(True, f"Passed every check on {images}: {'; '.join(told)}. This one map was not checked.")


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}"
