"""The key `metrics:` of a study file: by which further metrics its contrasts are judged."""

from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.errors import Problem
from stresslens.metrics.measures import NAMES, closest_metric, known_measure


def wrong_metrics(names: Sequence[str]) -> list[Problem]:
    """What is wrong with the metrics that a study file lists."""
    found = [(("metrics", index), _wrong(name)) for index, name in enumerate(names)]
    problems = [Problem(path, why) for path, why in found if why]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        problems.append(Problem(("metrics",), f"{twice[0]} is listed twice; list each metric only once"))
    return problems


def _wrong(name: str) -> str:
    """Why a study's contrasts cannot be judged by this metric; empty if they can."""
    if name == "cost":
        return (
            "the costs of errors are a table, which a study file does not have; "
            "use `stresslens compare STUDY --metric cost --costs FILE` once it is finished"
        )
    if name == "robust" or name.startswith("robust@"):
        return (
            "robust accuracy is compared by itself wherever the runs are attacked (the section "
            "`robustness`), at every radius; leave it out"
        )
    if known_measure(name) is not None:
        return ""
    return closest_metric(name, [each for each in NAMES if each != "cost"])
