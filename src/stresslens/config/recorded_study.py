"""Study files of predictions that other programs made: `study: {predictions: {NAME: FILES}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from glob import escape, glob
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from stresslens.config.contrasts import ContrastSection, claims_of, margins_of, pairs_of
from stresslens.config.run_names import folder_name
from stresslens.config.schema import STRICT
from stresslens.config.study_metrics import wrong_metrics
from stresslens.config.study_record import StatedClaim
from stresslens.config.validation import validated
from stresslens.config.yaml_source import Source
from stresslens.core.errors import ConfigError, Problem

SEED = re.compile(r"^(.*?)[-_. ]*(?:seed|run|rep)[-_. =]*(\d+)$", re.IGNORECASE)
"""The end of a file's name that is the number of a seed: `resnet-seed3`, `resnet_seed_3`."""
KEYS = ("study", "contrasts", "metrics")
"""The keys that such a study file can have."""


@dataclass(config=STRICT)
class RecordedPredictions:
    """Predictions that other programs made, and how their files are read. Paths and patterns are
    relative to the folder of the study file."""

    predictions: dict[str, str | list[str]]
    """For each variant its files, one a seed: a path, a pattern (`resnet-seed*.csv`), or a list."""
    name: str | None = None
    """Name of the study's folder; default: the file's name."""
    split: Literal["test", "validation"] = "test"
    """The split that the images belong to."""
    columns: dict[Literal["name", "label", "prediction", "scores"], str] = field(default_factory=dict)
    """The columns with other names than the usual ones, by what they hold."""
    labels: str | None = None
    """A file with a name and a label for each image, where the predictions have no labels."""
    classes: list[str] | None = None
    """The classes in the order of the scores, where the columns do not name them."""


@dataclass(config=STRICT)
class RecordedStudy:
    """The files of each variant by their seeds, and the pairs to compare."""

    name: str
    reading: RecordedPredictions
    files: dict[str, dict[int, Path]]
    labels: Path | None
    contrasts: list[tuple[str, str, str]]
    claims: list[StatedClaim]
    margins: dict[str, float]
    """The margins of sameness, by contrast."""
    metrics: list[str]
    """Further metrics that judge the contrasts."""
    source: Path


@dataclass(config=STRICT)
class _Sections:
    study: RecordedPredictions
    contrasts: dict[str, ContrastSection] | None = None
    metrics: list[str] | None = None


_SECTIONS = TypeAdapter(_Sections)


def variant_and_seed(path: Path) -> tuple[str, int]:
    """The name of the variant and the seed, from the name of a file; without a seed 0."""
    stem = path.parent.name if path.name == "labels" else path.stem  # predict2/labels of ultralytics
    found = SEED.match(stem)
    name, seed = (found[1], int(found[2])) if found and found[1] else (stem, 0)
    return folder_name(name), seed


def describes_predictions(values: Mapping[str, Any]) -> bool:
    """Whether a study file's plain values are those of predictions, which trains nothing."""
    return isinstance(values.get("study"), Mapping)


def read_recorded_study(file: Path) -> RecordedStudy | None:
    """The study of predictions that a YAML file describes; None if it describes none.

    Raises ConfigError, whose message lists every mistake as `file:line: key: what is wrong`.
    """
    source = Source.read(file) if file.is_file() else None
    if source is None or not describes_predictions(source.values):
        return None
    problems = [
        *source.problems,
        *(
            Problem((key,), "means nothing to predictions, which are not trained; leave it out")
            for key in source.values
            if key not in KEYS
        ),
    ]
    values = {key: value for key, value in source.values.items() if key in KEYS}
    sections = validated(_SECTIONS, values, problems, owner_of=_section_of)
    found = None if sections is None else _resolved(sections, source, problems)
    if found is None or problems:
        raise ConfigError(source.told(problems))
    return found


def _section_of(path: tuple[str | int, ...]) -> Any:
    """The dataclass of a section."""
    return RecordedPredictions if path[:1] == ("study",) else ContrastSection


def _resolved(sections: _Sections, source: Source, problems: list[Problem]) -> RecordedStudy:
    """The study with its files. Mistakes are added to `problems`."""
    reading, base = sections.study, source.file.parent
    if not reading.predictions:
        problems.append(
            Problem(("study", "predictions"), "name a variant and its files: {resnet: resnet.csv}")
        )
    folders: dict[str, str] = {}
    files: dict[str, dict[int, Path]] = {}
    for name, given in reading.predictions.items():
        path = ("study", "predictions", name)
        if (folder := folder_name(name)) in files:
            problems.append(
                Problem(path, f"another variant has the same folder name, {folder!r}; rename one")
            )
        folders[name] = folder
        files[folder] = _by_seed(_files_of(given, base, path, problems), path, problems)
    for name, contrast in (sections.contrasts or {}).items():
        if contrast.vary is not None:
            why = "nothing is known of the settings behind predictions; give pairs"
            problems.append(Problem(("contrasts", name, "vary"), why))
    problems += wrong_metrics(sections.metrics or [])
    if problems:
        sections = replace(sections, contrasts=None)
    contrasts = pairs_of(sections.contrasts or {}, {folder: {} for folder in files}, list(folders), problems)
    claims = claims_of(sections.contrasts or {}, contrasts, problems)
    margins = margins_of(sections.contrasts or {})
    labels = None if reading.labels is None else base / Path(reading.labels).expanduser()
    name = folder_name(reading.name or source.file.stem)
    return RecordedStudy(
        name, reading, files, labels, contrasts, claims, margins, sections.metrics or [], source.file
    )


def _files_of(
    given: str | list[str], base: Path, path: tuple[str | int, ...], problems: list[Problem]
) -> list[Path]:
    """The files that paths and patterns name, each once, in order."""
    found: dict[Path, None] = {}
    for text in [given] if isinstance(given, str) else given:
        place = base / Path(text).expanduser()
        pattern = str(Path(escape(str(base))) / Path(text).expanduser())
        files = [place] if place.is_file() else [Path(each) for each in sorted(glob(pattern))]
        if not files:
            problems.append(Problem(path, f"no file is called {text!r} in {base.resolve()}"))
        found.update(dict.fromkeys(files))
    return list(found)


def _by_seed(files: list[Path], path: tuple[str | int, ...], problems: list[Problem]) -> dict[int, Path]:
    """The files by the seeds in their names, or in those of their folders; numbered in order where none has
    one."""
    named = [SEED.match(file.stem) or SEED.match(file.parent.name) for file in files]
    seeds = [int(found[2]) for found in named if found] if any(named) else list(range(len(files)))
    if len(seeds) < len(files):
        without = files[named.index(None)].name
        why = f"{without} has no seed in its name, and others have; name all of them"
        problems.append(Problem(path, why))
    elif len(set(seeds)) < len(files):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        problems.append(Problem(path, f"two files have the seed {twice} in their names; rename one"))
    return dict(sorted(zip(seeds, files)))
