"""The key `contrasts:` of a study file: which variants are compared with each other."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from stresslens.config.dotted_keys import set_dotted
from stresslens.config.schema import STRICT
from stresslens.config.study_record import ClaimOf, StatedClaim
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.spelling import closest

WIDEST_MARGIN = 0.2
"""As a share; a larger one is meant in points."""

Pairs = list[tuple[str, str, str]]
"""(contrast, variant, variant), by the names of the variants' folders."""


@dataclass(config=STRICT)
class ContrastSection:
    """One contrast: named pairs of variants, or all pairs that differ in one setting only (`vary`).

    `claim` is an earlier conclusion: the second variant of each pair is better, in `claim_of`; or with
    `claim_of: sameness`, the two are the same within `same_within`. `protocol` is the name of the study
    that repeats the procedure of that time. With `same_within`, each pair is also asked whether it is the
    same within this margin.
    """

    pairs: list[tuple[str, str]] | None = None
    """Pairs of variants, by their names; a claim says that the second is better."""
    vary: str | None = None
    """The dotted key in which two variants differ, and in nothing else."""
    claim: str | None = None
    """An earlier conclusion that is checked."""
    claim_of: ClaimOf = "accuracy"
    """What the claim says: better in accuracy, better in robustness, or sameness within `same_within`."""
    same_within: Annotated[float, Field(gt=0, le=WIDEST_MARGIN)] | None = None
    """A margin, as a share (0.005 is half a point): are the two the same within it?"""
    protocol: str | None = None
    """Name of the study that repeats the procedure of that time."""


def pairs_of(
    contrasts: Mapping[str, ContrastSection],
    configs: Mapping[str, dict[str, Any]],
    names: Sequence[str],
    problems: list[Problem],
) -> Pairs:
    """The pairs to compare. Without contrasts, every variant is compared with the first one.
    Mistakes are added to `problems`.

    `configs` holds the plain values of each valid variant by its folder name. `names` are the names
    as the study file writes them; they include the variants with mistakes.
    """
    folders = dict(zip(names, configs)) if len(configs) == len(names) else {}
    pairs: Pairs = []
    for name, contrast in contrasts.items():
        if (contrast.pairs is None) == (contrast.vary is None):
            problems.append(Problem(("contrasts", name), "give either pairs or vary"))
        for index, pair in enumerate(contrast.pairs or []):
            path = ("contrasts", name, "pairs", index)
            unknown = [run for run in pair if run not in names]
            problems += [
                Problem(path, f"no run is called {run!r}; {closest(run, list(names))}") for run in unknown
            ]
            if pair[0] == pair[1]:
                problems.append(Problem(path, f"{pair[0]} is compared with itself"))
            if folders and not unknown:
                pairs.append((name, folders[pair[0]], folders[pair[1]]))
        if contrast.vary is not None:
            others = {run: _without(values, contrast.vary) for run, values in configs.items()}
            varied = [
                (name, a, b)
                for a, b in itertools.combinations(configs, 2)
                if _differ_only(configs[a], configs[b], others[a], others[b])
            ]
            if not varied and not problems:
                problems.append(
                    Problem(
                        ("contrasts", name, "vary"),
                        f"no two runs differ in {contrast.vary} and in nothing else",
                    )
                )
            pairs += varied
    if not contrasts:
        runs = list(configs)
        return [("against the first run", runs[0], other) for other in runs[1:]]
    return pairs


def claims_of(
    contrasts: Mapping[str, ContrastSection], pairs: Pairs, problems: list[Problem]
) -> list[StatedClaim]:
    """The claims that the contrasts make about their pairs."""
    for name, contrast in contrasts.items():
        if contrast.claim_of == "sameness":
            problems += _wrong_sameness(name, contrast)
        if contrast.protocol is not None and contrast.claim is None:
            problems.append(
                Problem(
                    ("contrasts", name, "protocol"), "a protocol belongs to a claim; give `claim` as well"
                )
            )
    return [
        StatedClaim(
            contrast=name,
            claim=c.claim,
            of=c.claim_of,
            protocol=c.protocol,
            pairs=[(a, b) for of, a, b in pairs if of == name],
        )
        for name, c in contrasts.items()
        if c.claim is not None
    ]


def _wrong_sameness(name: str, contrast: ContrastSection) -> list[Problem]:
    """What a claim of sameness lacks, or has too much."""
    found = []
    if contrast.same_within is None:
        why = "the same within what? give the margin in this contrast: same_within: 0.005 is half a point"
        found.append(Problem(("contrasts", name, "claim_of"), why))
    if contrast.claim is None:
        why = "sameness is what a claim says; give `claim` as well, or leave this out"
        found.append(Problem(("contrasts", name, "claim_of"), why))
    if contrast.protocol is not None:
        why = "a protocol explains why one seemed better; a claim of sameness has none, so leave it out"
        found.append(Problem(("contrasts", name, "protocol"), why))
    return found


def margins_of(contrasts: Mapping[str, ContrastSection]) -> dict[str, float]:
    """The margins of sameness of the contrasts that have one."""
    return {name: each.same_within for name, each in contrasts.items() if each.same_within is not None}


def differ_only(first: Mapping[str, Any], second: Mapping[str, Any], dotted: str) -> bool:
    """Whether the plain values of two variants differ in this dotted key and in no other."""
    return _differ_only(first, second, *(_without(values, dotted) for values in (first, second)))


def _differ_only(
    first: Mapping[str, Any], second: Mapping[str, Any], *others: Mapping[str, Any] | None
) -> bool:
    """`others` are the values of both without the key in which they may differ."""
    return others[0] is not None and others[0] == others[1] and first != second


def _without(values: Mapping[str, Any], dotted: str) -> Mapping[str, Any] | None:
    """The plain values with None at this dotted key; None where they cannot have it."""
    blanked = copy.deepcopy(dict(values))
    try:
        set_dotted(blanked, dotted, None)
    except ConfigError:
        return None
    return blanked
