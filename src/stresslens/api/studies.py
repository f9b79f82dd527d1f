"""A study that was carried out, as `sl.run` and `sl.open` return it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from stresslens.api.ablations import Ablation
from stresslens.api.comparisons import Comparison
from stresslens.api.named_scores import ByName, Scores, ScoresOfVariants
from stresslens.api.robust_scores import robust_of_runs, robust_of_variants
from stresslens.api.runs import Run
from stresslens.api.study_cards import study_card, study_chart, study_table, variant_card, variant_chart
from stresslens.api.words import public_call
from stresslens.charts.chart import Chart
from stresslens.comparison.folders import FolderComparison, compare_folders
from stresslens.comparison.schema import ComparisonFile
from stresslens.core.cards import card
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.result_lists import RowList
from stresslens.core.run_folder import RunFolder, run_folders
from stresslens.core.tables import ResultTable, RowTable
from stresslens.core.text import counted
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.report.load import load_study
from stresslens.report.page import write_report


class Study(RowTable):
    """A study: its folder, its runs, and what can be read from their files. Where a path is taken, it
    stands for its folder, and it has the methods of a Path, as what `sl.run` returned before.

    Plug-ins of its runs that are not built in are executed only with `trust`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, trust: bool = True) -> None:
        self.folder, self.trust = Path(folder), trust

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        runs = self.runs
        left = sum(not run.finished for run in runs)
        what = f"{counted(len({run.variant for run in runs}), 'variant')}, {counted(len(runs), 'run')}"
        return f"<Study {self.folder}: {what}{f', {left} not finished' if left else ''}>"

    def _repr_html_(self) -> str:
        try:
            return study_card(self.folder)
        except ConfigError:
            return card(repr(self))

    @public_call()
    def plot(self, figure: Literal["accuracy", "robustness"] = "accuracy") -> Chart:
        """The accuracy of each variant with its interval, in percent; or its robust accuracy over the
        radius, a chart for each way in which runs were attacked. Raises ConfigError where no run has
        finished, or none was attacked."""
        return study_chart(self.folder, figure)

    def to_frame(self) -> Any:
        """`rows`, a row for each run, as a `pandas.DataFrame` where pandas is installed."""
        return self.rows().to_frame()

    def to_csv(self, path: str | Path | None = None) -> str | Path:
        """`rows` as CSV: the text, or with `path` the file that was written."""
        return self.rows().to_csv(path)

    def _table(self) -> ResultTable:
        return study_table(self.folder)

    def __truediv__(self, other: str | os.PathLike[str]) -> Path:
        return self.folder / other

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Study):
            return self.folder == other.folder
        return self.folder == other if isinstance(other, Path) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.folder)

    def __getattr__(self, name: str) -> Any:
        """The methods of a Path, such as `rglob` and `exists`."""
        if name.startswith("_") or not hasattr(Path, name):
            raise AttributeError(f"Study has no attribute {name!r}")
        return getattr(self.folder, name)

    @property
    def runs(self) -> list[Run]:
        """Every run of the study: each variant with each seed, sorted by folder. A run whose record
        cannot be read has the status "unreadable"."""
        return [run_in(folder, trust=self.trust) for folder in run_folders(self.folder)]

    @public_call()
    def __getitem__(self, name: str) -> Variant:
        """A variant by the name of its folder. Raises UnknownName for any other name."""
        return ByVariant({run.variant: Variant(self, run.variant) for run in self.runs})[name]

    def __contains__(self, name: object) -> bool:
        return any(run.variant == name for run in self.runs)

    def __iter__(self) -> Iterator[Any]:
        """`rows`, so that `pandas.DataFrame(study)` is the same table."""
        return iter(self.rows())

    @public_call()
    def scores(self) -> ScoresOfVariants:
        """The scores of each variant over its finished seeds, as the report shows them, by the name of
        the variant's folder. Where all finished runs were attacked in the same way, "robust@0.05" and the
        like are the robust accuracies. Raises ConfigError where there is no run."""
        study = load_study(self.folder)
        found = ScoresOfVariants()
        for variant in study.variants:
            if not variant.finished:
                continue
            names = dict.fromkeys(
                name for run in variant.finished for name in run.record.scores.get(study.split, {})
            )
            scores = {name: variant.score(study.split, name) for name in names}
            found[variant.folder.name] = Scores(
                {name: score for name, score in scores.items() if score is not None}
            )
        for name, of_variants in robust_of_variants(study).items():
            for folder, score in of_variants.items():
                found[folder][name] = score
        return found

    def rows(self) -> RowList:
        """A row of plain values for each run: variant, seed, status, epochs, seconds, and the scores of
        its split, with the robust accuracies of `scores` where study.json can be read."""
        robust = self._robust_of_runs()
        return RowList(
            {
                "variant": run.variant,
                "seed": run.seed,
                "status": run.status,
                "split": run.split,
                "epochs": run.record.get("training", {}).get("epochs"),
                "seconds": run.record.get("training", {}).get("seconds"),
                **({name: e.value for name, e in run.results().scores.items()} if run.finished else {}),
                **robust.get(run.folder, {}),
            }
            for run in self.runs
        )

    def _robust_of_runs(self) -> dict[Path, dict[str, float]]:
        if not any(self.folder.glob("*/seed-*/robustness/*/result.json")):
            return {}
        try:
            return robust_of_runs(load_study(self.folder))
        except UnreadableRun:
            return {}

    @property
    def comparison(self) -> Comparison:
        """The comparison that the study ended with, from comparison.json: what `sl.compare(study)` returns,
        and robustness and what claims say of it. Where the file is missing or damaged, that of
        `sl.compare(study)`."""
        try:
            kept = ComparisonFile.read(self.folder / "comparison.json")
        except UnreadableRun:
            return Comparison(compare_folders(comparable(self.folder)).as_json())
        return Comparison(FolderComparison("study", kept, []).as_json())

    @property
    def ablation(self) -> Ablation:
        """What each ingredient of the recipe is worth, from comparison.json. Raises ConfigError for a study
        without an ablation."""
        kept = ComparisonFile.read(self.folder / "comparison.json").ablation
        if kept is None or not kept.tables:
            raise ConfigError(f"{self.folder} is no ablation with finished runs; `sl.ablate` makes one")
        return Ablation(kept)

    @property
    def report(self) -> Path:
        """The page of the study, report.html; it is written if it is not there."""
        page = self.folder / "report.html"
        return page if page.is_file() else write_report(self.folder)


@dataclass(frozen=True, repr=False)
class Variant(RowTable):
    """A variant of a study. Where a path is taken, it stands for its folder."""

    study: Study
    name: str

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<Variant {self.folder}: seeds {', '.join(str(run.seed) for run in self.runs)}>"

    def _repr_html_(self) -> str:
        try:
            return variant_card(self.folder)
        except ConfigError:
            return card(repr(self))

    @public_call()
    def plot(self) -> Chart:
        """The accuracy of each seed with its interval, in percent. Raises ConfigError where no seed has
        finished."""
        return variant_chart(self.folder)

    @property
    def folder(self) -> Path:
        return self.study.folder / self.name

    @property
    def trust(self) -> bool:
        """That of the study: whether plug-ins of its runs are executed."""
        return self.study.trust

    @property
    def runs(self) -> list[Run]:
        return [run_in(folder, trust=self.trust) for folder in run_folders(self.folder)]

    def scores(self) -> Scores:
        """The scores over the finished seeds. Raises UnknownName where no seed has finished."""
        return self.study.scores()[self.name]

    def _table(self) -> ResultTable:
        return self.scores()._table()


class ByVariant(ByName[Variant]):
    what = "variant"


def comparable(folder: Path) -> list[Path]:
    """What a comparison of a folder compares: a study by its contrasts; the variants of a folder without
    a study file, as `sl.train` makes, with the first."""
    if (folder / "study.json").is_file() or (folder / "record.json").is_file():
        return [folder]
    return sorted({record.parent.parent for record in folder.glob("*/seed-*/record.json")}) or [folder]


def run_in(
    folder: RunFolder,
    *,
    trust: bool = False,
    module: nn.Module | None = None,
    data: Data | Path | None = None,
) -> Run:
    """The run in a folder, also where its record cannot be read. See `Run`."""
    try:
        record = read_record(folder)
    except UnreadableRun as error:
        record = RunRecord(status="unreadable", message=str(error))
    run = Run(folder.path, record.as_json(), module, trust, data)
    vars(run)["_record"] = record  # it is validated
    return run
