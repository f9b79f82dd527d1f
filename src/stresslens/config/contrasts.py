"""Which runs of a study are held against each other."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.dataclasses import dataclass

from stresslens.config.dotted_keys import set_dotted
from stresslens.config.schema import STRICT
from stresslens.config.study_record import StatedClaim
from stresslens.core.errors import ConfigError, Problem, closest

Pairs = list[tuple[str, str, str]]
"""(contrast, run, run), by the names of the runs' folders."""


@dataclass(config=STRICT)
class ContrastSection:
    """Which runs are held against each other: named pairs, or all pairs that differ in one setting only.

    `claim` is what somebody concluded, that the second of each pair is better; `protocol` names the
    study that does it their way.
    """

    pairs: list[tuple[str, str]] | None = None
    vary: str | None = None
    claim: str | None = None
    protocol: str | None = None


def pairs_of(
    contrasts: Mapping[str, ContrastSection],
    recipes: Mapping[str, dict[str, Any]],
    names: Sequence[str],
    found: list[Problem],
) -> Pairs:
    """The pairs to compare; without contrasts, every run against the first. What is wrong is added
    to `found`.

    `recipes` are the runs' plain values by folder; `names` are the runs' names as the file gives
    them, with those of mistaken runs.
    """
    folders = dict(zip(names, recipes)) if len(recipes) == len(names) else {}
    pairs: Pairs = []
    for name, contrast in contrasts.items():
        if (contrast.pairs is None) == (contrast.vary is None):
            found.append(Problem(("contrasts", name), "give either pairs or vary"))
        for place, pair in enumerate(contrast.pairs or []):
            path = ("contrasts", name, "pairs", place)
            unknown = [run for run in pair if run not in names]
            found += [
                Problem(path, f"no run is called {run!r}; {closest(run, list(names))}") for run in unknown
            ]
            if pair[0] == pair[1]:
                found.append(Problem(path, f"{pair[0]} is held against itself"))
            if folders and not unknown:
                pairs.append((name, folders[pair[0]], folders[pair[1]]))
        if contrast.vary is not None:
            varied = [
                (name, a, b)
                for a, b in itertools.combinations(recipes, 2)
                if differ_only(recipes[a], recipes[b], contrast.vary)
            ]
            if not varied and not found:
                found.append(
                    Problem(
                        ("contrasts", name, "vary"),
                        f"no two runs differ in {contrast.vary} and in nothing else",
                    )
                )
            pairs += varied
    if not contrasts:
        runs = list(recipes)
        return [("against the first run", runs[0], other) for other in runs[1:]]
    return pairs


def claims_of(
    contrasts: Mapping[str, ContrastSection], pairs: Pairs, found: list[Problem]
) -> list[StatedClaim]:
    """What the contrasts claim of their pairs."""
    for name, contrast in contrasts.items():
        if contrast.protocol is not None and contrast.claim is None:
            found.append(
                Problem(
                    ("contrasts", name, "protocol"), "a protocol belongs to a claim; give `claim` as well"
                )
            )
    return [
        StatedClaim(
            contrast=name,
            claim=c.claim,
            protocol=c.protocol,
            pairs=[(a, b) for of, a, b in pairs if of == name],
        )
        for name, c in contrasts.items()
        if c.claim is not None
    ]


def differ_only(first: Mapping[str, Any], second: Mapping[str, Any], dotted: str) -> bool:
    """Whether two recipes' plain values differ, and in one dotted key alone."""
    blanked = [copy.deepcopy(dict(values)) for values in (first, second)]
    try:
        for values in blanked:
            set_dotted(values, dotted, None)
    except (ConfigError, AttributeError):
        return False
    return first != second and blanked[0] == blanked[1]
