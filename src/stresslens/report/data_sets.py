"""The variants of a study by the images they were tested on: only those of one set are ranked, drawn
together and held against one baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stresslens.charts.chart import Chart
from stresslens.core.format import count
from stresslens.core.types import Estimate
from stresslens.report import accuracy_charts, curves, epochs, per_class, summary
from stresslens.report.curves import Charts
from stresslens.report.gallery import SurestMistakes, surest_mistakes
from stresslens.report.load import Run, StudyFolder, VariantRuns
from stresslens.report.summary import Score


@dataclass(frozen=True)
class DataSetResults:
    """What the page shows of the variants that were tested on the same images.

    `title` is empty if the study has one such set. `chosen` is the variant that validation chooses.
    `baseline` is the majority-class baseline, if it is the same for all.
    """

    title: str
    variants: Sequence[VariantRuns]
    scores: Sequence[Score]
    more_scores: Sequence[Score]
    baseline: Estimate | None
    chosen: str
    accuracy_chart: Chart | None
    mistakes: SurestMistakes | None
    cost_charts: Sequence[Chart]
    curves: Charts | None
    epochs: Sequence[epochs.EpochTable]
    confusions: Sequence[per_class.Confusion]
    recalls: per_class.Recalls | None
    confidence: Charts | None

    @property
    def units(self) -> set[str]:
        """What the intervals of the first score are over."""
        return {e.unit for score in self.scores[:1] for e in score.estimates if e}


def by_data_set(study: StudyFolder) -> list[StudyFolder]:
    """The study for each set of test images, with the variants that have a run there, in order. The
    name of each is that of its data."""
    by_images: dict[object, list[VariantRuns]] = {}
    for variant in study.variants:
        if variant.shown:
            by_images.setdefault(_images_of(variant.shown, study.split), []).append(variant)
    if len(by_images) < 2:
        return [study]
    return [
        replace(
            study,
            name=_title(variants, study.split),
            variants=tuple(replace(variant, place=k) for k, variant in enumerate(variants)),
        )
        for variants in by_images.values()
    ]


def data_set_results(study: StudyFolder, page_of: Callable[[Run], str]) -> list[DataSetResults]:
    """Results for each set of test images with a finished run; `page_of` gives the address of a run's
    page."""
    parts = by_data_set(study)
    return [
        _results(part, part.name if len(parts) > 1 else "", place, page_of)
        for place, part in enumerate(parts)
        if summary.headline(part) or any(run.metrics for run in part.runs)
    ]


def _results(study: StudyFolder, title: str, place: int, page_of: Callable[[Run], str]) -> DataSetResults:
    scores, first = summary.scores(study), summary.headline_names(study)
    baseline = summary.shared_baseline(scores)
    head = [s for s in scores if s.name in first and not (baseline and s.name == "majority_baseline")]
    chosen, logged = summary.chosen(study), curves.learning_series(study)
    shown = next((v.shown for v in study.variants if v.name == (chosen or summary.best(study))), None)
    name = (
        f"{shown.name}, seed {shown.seed}" if shown and len(study.runs) > 1 else shown.name if shown else ""
    )
    return DataSetResults(
        title,
        summary.headline(study),
        head,
        [score for score in scores if score.name not in first],
        baseline,
        chosen,
        accuracy_charts.accuracy_chart(study),
        surest_mistakes(shown, name, place, page_of(shown)) if shown else None,
        accuracy_charts.cost_charts(study),
        curves.learning_curves(logged),
        epochs.study_epochs(logged),
        per_class.confusions(study),
        per_class.recall_table(study),
        curves.confidence_charts(study),
    )


def _images_of(run: Run, split: str) -> object:
    """What tells the images that a run was tested on from others; "" if nothing is recorded."""
    data = run.record.data
    if data.division:
        return data.name, sum(data.sizes.values())
    return data.splits.get(split) or data.fingerprint


def _title(variants: Sequence[VariantRuns], split: str) -> str:
    data = variants[0].runs[0].record.data
    images = data.sizes.get(split)
    return f"{data.name or 'data without a name'}{f', {count(images)} {split} images' if images else ''}"
