"""The top-level keys of a study file: which belong to the study itself, their schema and
validation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from stresslens.config import registry
from stresslens.config.contrasts import ContrastSection
from stresslens.config.data_sizes import DataSizes
from stresslens.config.recorded_study import RecordedPredictions
from stresslens.config.repeats import Repeats
from stresslens.config.schema import STRICT
from stresslens.config.search_space import Halving, Sweep
from stresslens.config.setting_keys import keys_meant
from stresslens.config.study_metrics import wrong_metrics
from stresslens.config.validation import validated
from stresslens.core.errors import Problem
from stresslens.core.spelling import closest, near, unknown_key

ExecutorName = Literal["local", "ray"]
"""Where runs are executed: on this machine, or on a Ray cluster."""

VARIANT_KEYS = (
    "data",
    "input",
    "model",
    "estimator",
    "train",
    "evaluation",
    "robustness",
    "corruptions",
    "explain",
    "views",
    "track",
)
"""Keys of the configuration of a variant. At the top level they apply to all variants."""

STUDY_KEYS = (
    "study",
    "preset",
    "runs",
    "grid",
    "sweep",
    "repeats",
    "contrasts",
    "metrics",
    "ablate",
    "data_sizes",
    "executor",
)
"""Keys of the study itself."""


@dataclass(config=STRICT)
class StudyKeys:
    """The keys of a study that do not belong to the configuration of a variant."""

    study: str | RecordedPredictions | None = None
    """Name of the study's folder, default: the file's name; or predictions of other programs."""
    preset: str | None = None
    """Settings that the study begins from (`stresslens list presets`) and changes."""
    runs: dict[str, dict[str, Any] | None] | None = None
    """The variants: for each name its changes, by dotted key."""
    grid: dict[str, list[Any]] | None = None
    """Values for dotted keys, crossed with each other and with `runs`."""
    repeats: (
        Annotated[int, Field(ge=1, le=10_000)] | list[Annotated[int, Field(ge=0, lt=2**32)]] | Repeats
    ) = 1
    """The number of seeds, a list of seeds, or divisions of the data."""
    contrasts: dict[str, ContrastSection] | None = None
    """What is compared; default: every variant against the first."""
    metrics: list[str] | None = None
    """Further metrics of the test predictions that judge the contrasts: balanced_accuracy, auroc, …"""
    ablate: dict[str, Any] | Literal["auto"] | None = None
    """What each ingredient of the recipe is worth: its settings by dotted key; or `auto` finds them."""
    data_sizes: DataSizes | None = None
    """Trains every variant at several sizes of its training data."""
    sweep: Sweep | None = None
    """A search for the best settings of each variant, by validation."""
    executor: ExecutorName = "local"
    """Where runs are executed: on this machine, or on a Ray cluster."""


_STUDY_KEYS = TypeAdapter(StudyKeys)


def _section_of(path: registry.Keys) -> Any:
    """The dataclass of a section of the study."""
    if path[:1] == ("sweep",):
        return Halving if path[1:2] == ("halving",) else Sweep
    return {"repeats": Repeats, "data_sizes": DataSizes}.get(str(path[0]) if path else "", ContrastSection)


def study_keys_of(values: Mapping[str, Any], problems: list[Problem]) -> Any:
    """The validated `StudyKeys`. Where some keys are wrong, the others are kept, so that the
    mistakes in the variants are reported too."""
    known = [*VARIANT_KEYS, *STUDY_KEYS]
    problems += [Problem((key,), _unknown(key, known, values)) for key in values if key not in known]
    given = {k: v for k, v in values.items() if k in STUDY_KEYS}
    before = len(problems)
    keys = validated(_STUDY_KEYS, given, problems, owner_of=_section_of)
    if keys is None:
        wrong = {problem.path[0] for problem in problems[before:]}
        valid = {k: v for k, v in given.items() if k not in wrong}
        keys = validated(_STUDY_KEYS, valid, [], owner_of=_section_of)
    return keys


def _unknown(key: str, known: list[str], values: Mapping[str, Any]) -> str:
    meant = "" if near(key, known) else keys_meant(key, values)
    return f"unknown key; did you mean {meant}?" if meant else unknown_key(key, known)


def check_study_keys(keys: StudyKeys, study_name: str, problems: list[Problem]) -> None:
    """Adds to `problems` the study's keys that have the right type but an impossible value."""
    if not re.fullmatch(r"[\w][\w.,=+-]*", study_name):
        why = f"{study_name!r} is not a valid folder name; use letters, digits and . , = + - _"
        problems.append(Problem(("study",), why))
    problems += wrong_metrics(keys.metrics or [])
    repeats = keys.repeats
    if isinstance(repeats, list) and (not repeats or len(set(repeats)) < len(repeats)):
        problems.append(
            Problem(("repeats",), "a list of seeds must hold at least one seed, and each only once")
        )
    sizes = keys.data_sizes
    if sizes is not None and len(set(sizes.sizes)) < len(sizes.sizes):
        problems.append(Problem(("data_sizes", "sizes"), "list each size only once"))
    for index, run in enumerate((sizes.runs if sizes else None) or []):
        if run not in (keys.runs or {}):
            why = f"no run is called {run!r}; {closest(run, list(keys.runs or {}))}"
            problems.append(Problem(("data_sizes", "runs", index), why))
    if isinstance(repeats, Repeats) and (wrong := repeats.wrong()) is not None:
        problems.append(Problem(("repeats",), wrong))
    if isinstance(repeats, Repeats) and keys.sweep is not None:
        why = "the validation images of one split are test images of another; repeat over seeds instead"
        problems.append(Problem(("sweep",), why))


def seeds_of(repeats: int | list[int] | Repeats) -> tuple[list[int], Repeats | None]:
    """The seeds of a study, and how each splits the data if each has its own split."""
    if isinstance(repeats, Repeats):
        return repeats.seeds, repeats
    return list(range(repeats)) if isinstance(repeats, int) else repeats, None
