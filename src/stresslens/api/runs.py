"""A finished run, as `sl.train` and `sl.open` return it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

from stresslens.api.found_slices import SlicesOfSplit
from stresslens.api.named_scores import ByName, Scores, scores_table
from stresslens.api.ood_results import DetectorComparison
from stresslens.api.run_cards import run_card, run_chart
from stresslens.api.split_results import (
    ClassTable,
    ConfusionMatrix,
    ReliabilityDiagram,
    RiskCoverageCurve,
    SplitResults,
)
from stresslens.api.words import public_call
from stresslens.charts.chart import Chart
from stresslens.config.run_config import read_run_config
from stresslens.core.cards import card
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.result_lists import RowList
from stresslens.core.run_folder import RunFolder
from stresslens.core.tables import ResultTable, RowTable
from stresslens.core.text import counted
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.ood_detectors import score_ood
from stresslens.evaluation.ood_sets import ood_set
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.run_data import same_data_of
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import Predictions
from stresslens.report.model_card import render_model_card
from stresslens.report.page import write_reports_of
from stresslens.robustness.result import AttackResult
from stresslens.study.predict_stage import evaluate_again
from stresslens.training.epoch_log import SPLITS, EpochMetrics, EpochTime


class Record(ByName[Any]):
    """A record.json as a dictionary of plain values, which shows itself in one line; `dict(record)` shows
    all."""

    what = "key"

    def __repr__(self) -> str:
        return f"Record({self.get('status', 'no status')}; {', '.join(map(str, self))})"


@dataclass(frozen=True, repr=False)
class Run(RowTable):
    """A finished run: its folder, its record, and what can be read from them. Where a path is taken,
    it stands for its folder.

    `module` is the caller's own architecture, if the run was trained on one. Plug-ins that are not
    built in are executed only with `trust`. `data_now` are the data of the run, or where they lie now; None:
    where they were.
    """

    folder: Path
    record: Mapping[str, Any]
    module: nn.Module | None = None
    trust: bool = True
    data_now: Data | Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "record", Record(self.record))

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        status = self._record.status
        accuracy = self._record.scores.get(self.split, {}).get("accuracy")
        scored = (
            ""
            if accuracy is None
            else f", {self.split} accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})"
            f" of {counted(accuracy.n, 'image')}"
        )
        return f"<Run {self.folder}: {status}{scored}>"

    def _repr_html_(self) -> str:
        try:
            return run_card(self.folder)
        except ConfigError:
            return card(repr(self))

    @public_call()
    def model_card(self) -> str:
        """The model card as Markdown, with the front matter of the Hugging Face hub, from the run's files.
        Raises ConfigError where nothing was measured."""
        return render_model_card(RunFolder(self.folder))

    @public_call()
    def plot(self, figure: Literal["loss", "accuracy"] | None = None) -> Chart:
        """Loss and accuracy over the epochs, side by side or one of them; the chosen epoch is ringed.
        Raises ConfigError for a run without epochs."""
        return run_chart(self.folder, figure)

    def _table(self) -> ResultTable:
        return scores_table(self._record.scores, "split")

    @cached_property
    def _record(self) -> RunRecord:
        return RunRecord.model_validate(self.record)

    @cached_property
    @public_call()
    def data(self) -> Data:
        """The data of the run, loaded when they are first asked for. Raises ConfigError where they came from
        Python and are not given, or have changed, and DataError where they are gone."""
        return same_data_of(RunFolder(self.folder), trust=self.trust, data=self.data_now)

    @property
    def split(self) -> str:
        """The split whose scores count: test, or validation where the data have no test split."""
        return next((name for name in ("test", "validation") if name in self._record.scores), "test")

    @property
    def variant(self) -> str:
        """The name of the variant's folder."""
        return self.folder.resolve().parent.name

    @property
    def seed(self) -> int | None:
        return self._record.seed

    @property
    def status(self) -> str:
        """ "finished", "incomplete", "stopped", "diverged", "failed", "running", "unreadable"."""
        return self._record.status

    @property
    def finished(self) -> bool:
        """Whether the run has its model and its predictions."""
        return self._record.usable

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._record.classes)

    def scores(self, split: str = "test") -> Scores:
        """Each named score with its interval. Raises ConfigError for a split without scores."""
        return self.results(split).scores

    @public_call()
    def results(self, split: str | None = None) -> SplitResults:
        """Scores, confusion matrix, reliability and more of a split, by default of `self.split`. Raises
        ConfigError for a split without scores."""
        wanted, known = split or self.split, self._record.scores
        if wanted not in known:
            raise ConfigError(
                f"{self.folder} has no scores for {wanted!r}; it has {', '.join(known) or 'none'}"
            )
        return SplitResults(self._record, wanted)

    @public_call()
    def find_slices(self, split: str | None = None) -> SlicesOfSplit:
        """Groups of similar images of low accuracy in a split, by default `self.split`: half of the images
        are clustered by their features, and clusters of low accuracy are tested on the other half.

        They are computed once, as a read of the split, and kept in the run's record and on its page.
        Raises ConfigError for a split that the data do not have."""
        wanted, folder = split or self.split, RunFolder(self.folder)
        record = read_record(folder)
        if wanted not in record.found_slices:
            record = evaluate_again(
                folder, wanted, trust=self.trust, module=self.module, data=self.data_now, find_slices=True
            )
            write_reports_of(self.folder)
            self.__dict__.pop("_record", None)
        return SlicesOfSplit(record.found_slices[wanted], self.classes, wanted)

    @public_call()
    def detect_ood(
        self, *sets: str | Mapping[str, Any] | Data, detectors: Sequence[Any] = (), split: str | None = None
    ) -> DetectorComparison:
        """Compares detectors of out-of-distribution images on `sets`: data sets by name, folders of images,
        Data, "uniform_noise", "gaussian_noise" or "blurred". `detectors` are by default all; `split` is
        the run's own ("test", otherwise "validation"). The record and the run's page keep the result. Raises
        ConfigError for an unknown set or detector, and DataError for a set of fewer than 10 images."""
        if not sets:
            raise ConfigError(
                "detect_ood needs at least one set: 'uniform_noise', a data set, a folder, Data"
            )
        chosen = split or self.split
        folder, listed = RunFolder(self.folder), [detectors] if isinstance(detectors, str) else detectors
        opened = finished(folder, chosen, trust=self.trust, module=self.module, data=self.data_now)
        with opened as (model, data, record):
            named = [ood_set(each, data, trust=self.trust) for each in sets]
            found = score_ood(
                folder, model, data, record, named, split=chosen, detectors=listed, trust=self.trust
            )
        object.__setattr__(self, "record", Record(record.as_json()))
        self.__dict__.pop("_record", None)
        write_reports_of(self.folder)
        return DetectorComparison(found)

    @property
    def confusion(self) -> ConfusionMatrix | None:
        """That of `self.split`; of another one: `run.results("validation").confusion`."""
        return self.results().confusion

    @property
    def reliability(self) -> ReliabilityDiagram | None:
        """That of `self.split`, from the probabilities; None where the model gives none."""
        return self.results().reliability

    @property
    def risk_coverage(self) -> RiskCoverageCurve | None:
        """That of `self.split`."""
        return self.results().risk_coverage

    @property
    def per_class(self) -> ClassTable | None:
        """The scores of each class on `self.split`."""
        return self.results().per_class

    @property
    def history(self) -> RowList:
        """A row for each epoch that was logged: "epoch", "loss", "lr", "seconds", and figures such as
        "validation accuracy". A figure that an epoch lacks is NaN, so that all rows have the same keys.
        Empty for an estimator."""
        folder = RunFolder(self.folder)
        if not folder.metrics.is_file():
            return RowList()
        seconds: dict[int, float] = {}
        if folder.timings.is_file():
            seconds = {line.epoch: line.seconds for line in EpochTime.read_lines(folder.timings)}
        rows = [_flat(line, seconds) for line in EpochMetrics.read_lines(folder.metrics)]
        keys = dict.fromkeys(key for row in rows for key in row)
        return RowList({key: row.get(key, math.nan) for key in keys} for row in rows)

    @public_call()
    def predictions(self, split: str = "test") -> Predictions:
        """The scores (N, K), the labels (N,) and the positions (N,) of a split's images. Raises
        ConfigError for a split without predictions."""
        return Predictions.of_arrays(RunFolder(self.folder).load_predictions(split))

    @property
    @public_call()
    def robustness(self) -> list[AttackResult]:
        """The finished attacks on the run, as `sl.attack(run, …)` returned them, without certificates;
        sorted by folder, empty where it was not attacked. Raises UnreadableRun for a damaged result."""
        results = sorted((self.folder / "robustness").glob("*/result.json"))
        return [AttackResult.load(result.parent) for result in results]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run with every setting, as `config.yaml` holds it."""
        return read_run_config(RunFolder(self.folder).config)

    @public_call()
    def model(self) -> nn.Sequential:
        """The trained model of the chosen epoch, in evaluation mode: images (N,C,H,W) in [0,1] to logits
        (N,K)."""
        return open_model(RunFolder(self.folder), trust=self.trust, module=self.module)


def _flat(line: EpochMetrics, seconds: Mapping[int, float]) -> dict[str, float]:
    """The figures of an epoch by flat names."""
    row: dict[str, float] = {"epoch": line.epoch}
    plain = {"loss": line.loss, "lr": line.lr, "seconds": seconds.get(line.epoch)}
    row |= {name: value for name, value in plain.items() if value is not None}
    for split in SPLITS:
        row |= {f"{split} {name}": value for name, value in getattr(line, split).items()}
    return row | {f"objective {name}": value for name, value in line.objective.items()}
