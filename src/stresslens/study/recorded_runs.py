"""Runs of predictions that another program made: a folder as that of a run, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from stresslens.comparison.accuracy import compare_study_accuracy
from stresslens.comparison.claims import study_claims
from stresslens.comparison.other_metrics import compare_study_by_metrics
from stresslens.config.recorded_study import RecordedStudy, variant_and_seed
from stresslens.config.study_record import FILE, StudyRecord, read_study_record
from stresslens.config.yaml_source import head_of
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_json
from stresslens.core.image_files import digest
from stresslens.core.run_folder import FORMAT, RunFolder, command_line, environment
from stresslens.core.version import __version__
from stresslens.evaluation.paired_predictions import shared_images
from stresslens.evaluation.prediction_rows import FORMATS
from stresslens.evaluation.prediction_table import PredictionTable, read_predictions
from stresslens.evaluation.record import DataRecord, RunRecord, read_record, write_record
from stresslens.evaluation.scores import summary_without_images
from stresslens.evaluation.true_labels import read_labels
from stresslens.report.page import write_report

Place: TypeAlias = tuple[str, int]
"""A variant and a seed."""


def variant_named(text: str) -> str:
    """The variant of a file of predictions; any other text as it is."""
    path = Path(text)
    return variant_and_seed(path)[0] if path.suffix.lower() in FORMATS else text


def record_runs(tables: Sequence[PredictionTable], out: Path, *, split: str = "test") -> list[RunFolder]:
    """Writes the folder of a run for each table, with scores, predictions, record and page, as if the model
    had been run on `split` here. They are below `out/predictions-…`, which is named after the images, and
    have the names of their files. The tables are those that `shared_images` returns.

    Raises ConfigError for two files of one name.
    """
    places = [variant_and_seed(table.source) for table in tables]
    if twice := [place for place in places if places.count(place) > 1]:
        name, seed = twice[0]
        raise ConfigError(f"two files are called {name} with seed {seed}; give each file another name")
    study = out / f"predictions-{_fingerprint(tables[0])[:8]}"
    folders = _write_runs(study, dict(zip(places, tables)), split)
    _add_to_study(study, places)
    _conclude(study, split)
    return folders


def tables_of(study: RecordedStudy) -> dict[Place, PredictionTable]:
    """The tables of a study of predictions, with the images that all have. Raises DataError."""
    reading = study.reading
    columns = {str(role): name for role, name in reading.columns.items()}
    truth = None if study.labels is None else read_labels(study.labels)
    places = {(variant, seed): file for variant, files in study.files.items() for seed, file in files.items()}
    tables = [
        read_predictions(file, columns=columns, labels=truth, classes=reading.classes)
        for file in places.values()
    ]
    return dict(zip(places, shared_images(tables)))


def record_study(study: RecordedStudy, tables: Mapping[Place, PredictionTable], out: Path) -> Path:
    """Writes a study of predictions and its report, as `run` does for one that is trained, and returns its
    folder, `out/NAME`. Raises ConfigError where that folder holds runs that were trained."""
    folder, split = out / study.name, study.reading.split
    _write_runs(folder, tables, split)
    every = sorted({seed for files in study.files.values() for seed in files})
    described = StudyRecord(
        format=1,
        name=study.name,
        runs=list(study.files),
        seeds=every,
        own_seeds={run: list(own) for run, own in study.files.items() if list(own) != every},
        contrasts=study.contrasts,
        claims=study.claims,
        margins=study.margins,
        metrics=study.metrics,
        command=command_line(),
        source=str(study.source),
        head="\n".join(head_of(study.source)),
    )
    write_json(folder / FILE, described.as_json())
    _conclude(folder, split)
    return folder


@contextmanager
def temporary_runs(tables: Mapping[Place, PredictionTable], split: str) -> Iterator[list[Path]]:
    """The folders of the variants, which are gone afterwards."""
    with TemporaryDirectory() as place:
        folders = _write_runs(Path(place), tables, split)
        yield list(dict.fromkeys(folder.path.parent for folder in folders))


def _write_runs(study: Path, tables: Mapping[Place, PredictionTable], split: str) -> list[RunFolder]:
    folders = {place: RunFolder(study / place[0] / f"seed-{place[1]}") for place in tables}
    for folder in folders.values():
        if folder.card.exists():
            raise ConfigError(f"{folder.path} is a run that was trained; give the study another name")
    for place, folder in folders.items():
        with folder.locked():
            _write(folder, tables[place], place, split, _fingerprint(tables[place]))
    return list(folders.values())


def _conclude(study: Path, split: str) -> None:
    """Compares the runs of a study and writes its pages."""
    compared = compare_study_accuracy(study, split=split)
    compared.claims = study_claims(study, compared)
    compared.by_metric = compare_study_by_metrics(study, compared)
    write_json(study / "comparison.json", compared.as_json())
    write_report(study)


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
    for curves in (record.risk_coverage, record.reliability):
        curves.pop(split, None)
    summary_without_images(predictions, table.columns).put(record, split)
    write_record(folder, record)


def _add_to_study(folder: Path, places: Sequence[Place]) -> None:
    """Writes study.json with these runs, and the other variants that it had before. Earlier seeds of these
    variants are not listed any more."""
    kept = read_study_record(folder) if (folder / FILE).exists() else StudyRecord()
    seeds: dict[str, set[int]] = {run: set(kept.seeds_of(run)) for run in kept.runs}
    seeds.update({variant: set() for variant, _ in places})
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
