"""Runs of predictions that another program made: a folder as that of a run, without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stresslens.comparison.accuracy import compare_study_accuracy
from stresslens.config.run_names import folder_name
from stresslens.config.study_record import FILE, StudyRecord, read_study_record
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_json
from stresslens.core.image_files import digest
from stresslens.core.run_folder import FORMAT, RunFolder, command_line, environment
from stresslens.core.version import __version__
from stresslens.evaluation.paired_predictions import shared_images
from stresslens.evaluation.prediction_table import PredictionTable
from stresslens.evaluation.record import DataRecord, RunRecord, read_record, write_record
from stresslens.evaluation.scores import summary_without_images
from stresslens.report.page import write_reports_of

SEED = re.compile(r"^(.*?)[-_. ]*(?:seed|run|rep)[-_. =]*(\d+)$", re.IGNORECASE)
"""The end of a file's name that is the number of a seed: `resnet-seed3`, `resnet_seed_3`."""


def variant_and_seed(path: Path) -> tuple[str, int]:
    """The name of the variant and the seed, from the name of a file; without a seed 0."""
    found = SEED.match(path.stem)
    name, seed = (found[1], int(found[2])) if found and found[1] else (path.stem, 0)
    return folder_name(name), seed


def record_runs(tables: Sequence[PredictionTable], out: Path, *, split: str = "test") -> list[RunFolder]:
    """Writes the folder of a run for each table, with scores, predictions, record and page, as if the model
    had been run on `split` here. They are below `out/predictions-…`, which is named after the images, and
    have the names of their files. Only the images that all tables have are used.

    Raises ConfigError for two files of one name, and DataError as `shared_images` does.
    """
    tables = shared_images(tables)
    places = [variant_and_seed(table.source) for table in tables]
    if twice := [place for place in places if places.count(place) > 1]:
        name, seed = twice[0]
        raise ConfigError(f"two files are called {name} with seed {seed}; give each file another name")
    fingerprint = _fingerprint(tables[0])
    study = out / f"predictions-{fingerprint[:8]}"
    folders = []
    for table, (variant, seed) in zip(tables, places):
        folder = RunFolder(study / variant / f"seed-{seed}")
        with folder.locked():
            _write(folder, table, (variant, seed), split, fingerprint)
        folders.append(folder)
    _write_study(study, places)
    write_json(study / "comparison.json", compare_study_accuracy(study, split=split).as_json())
    write_reports_of(folders[0].path)
    return folders


def _fingerprint(table: PredictionTable) -> str:
    """16 hexadecimal digits that change with the images' names, their labels, and the classes."""
    content = "\0".join([*table.classes, "", *table.names]).encode() + table.labels.tobytes()
    return digest(content).hex()[:16]


def _write(
    folder: RunFolder, table: PredictionTable, place: tuple[str, int], split: str, fingerprint: str
) -> None:
    """Writes the run of a table on a split; what is known of other splits of the same images stays."""
    predictions = table.predictions
    predictions.save(folder.predictions(split))
    write_json(folder.environment, environment({}).as_json())
    study = folder.path.parent.parent.name
    record = read_record(folder) if folder.record.exists() else RunRecord(status="finished", stages={})
    record.format, record.version = FORMAT, __version__
    record.source, record.study = str(table.source), study
    record.run, record.seed = place
    record.classes = list(table.classes)
    record.data = DataRecord(
        name=study,
        fingerprint=fingerprint,
        splits={**record.data.splits, split: fingerprint},
        sizes={**record.data.sizes, split: len(table)},
        notes=[f"read from {table.source}", *table.notes],
    )
    record.reads_of_test += split == "test"
    summary_without_images(predictions, table.columns).put(record, split)
    write_record(folder, record)


def _write_study(folder: Path, places: Sequence[tuple[str, int]]) -> None:
    """Writes study.json with these runs, and those that it had before."""
    kept = read_study_record(folder) if (folder / FILE).exists() else StudyRecord()
    seeds: dict[str, set[int]] = {run: set(kept.seeds_of(run)) for run in kept.runs}
    for variant, seed in places:
        seeds.setdefault(variant, set()).add(seed)
    every = sorted(set().union(*seeds.values()))
    first = next(iter(seeds))
    described = StudyRecord(
        format=1,
        name=folder.name,
        runs=list(seeds),
        seeds=every,
        own_seeds={run: sorted(own) for run, own in seeds.items() if sorted(own) != every},
        contrasts=[("against the first", first, other) for other in seeds if other != first],
        command=command_line(),
    )
    write_json(folder / FILE, described.as_json())


def folders_to_compare(folders: Sequence[RunFolder]) -> list[Path]:
    """The variants of recorded runs, in their order; the runs themselves where each has one seed."""
    variants: Mapping[Path, None] = dict.fromkeys(folder.path.parent for folder in folders)
    return list(variants) if len(variants) < len(folders) else [folder.path for folder in folders]
