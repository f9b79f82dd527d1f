"""Prediction sets of a run's page: how conformal sets do on its test images, from saved predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.types import Estimate
from stresslens.evaluation.guarantees import (
    CalibrationImages,
    Wanted,
    calibration_images,
    calibration_split,
    guarantees_of,
)
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.conformal import (
    IMAGE_DRAWS,
    expected_coverage,
    fewest_calibration_images,
    row_keys,
    uniform_of,
)
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.set_coverage import SetScores, set_scores
from stresslens.report.gallery import class_name
from stresslens.report.load import Run

COVERAGES = (0.9, 0.95)
VALUES = 20_000_000
"""Most scores (images times classes) of a split that a page is made from."""
CLASSES = 20
"""Classes whose coverage is listed, those of the lowest coverage."""


@dataclass(frozen=True)
class SetsAtCoverage:
    """Sets of one coverage: their scores, and the class of the lowest coverage."""

    wanted: float
    scores: SetScores
    lowest: str
    expected: tuple[float, float] | None
    """Between these lies the coverage in 95 of 100 draws of the calibration images; None where too few of
    them calibrate, so that every set has all classes."""

    @property
    def single(self) -> Estimate:
        """The share of the sets with one class."""
        return wilson(self.scores.sizes.get(1, 0), self.scores.coverage.n)

    @property
    def empty(self) -> Estimate:
        """The share of the sets without any class."""
        return wilson(self.scores.empty, self.scores.coverage.n)

    @property
    def lowest_coverage(self) -> Estimate:
        return self.scores.by_class[self.scores.worst_class]

    @property
    def needed(self) -> int:
        """The fewest calibration images for this coverage."""
        return fewest_calibration_images(self.wanted)


@dataclass(frozen=True)
class SetsSection:
    """The sets at each coverage, which images calibrate them, and the coverage of the classes: a row with
    its name, its images and its coverage at each. `why` says why there are none."""

    split: str
    at: Sequence[SetsAtCoverage] = ()
    calibrating: int = 0
    source: str = ""
    caveat: str = ""
    classes: Sequence[tuple[str, int, Sequence[Estimate]]] = ()
    left_out: int = 0
    why: str = ""


def prediction_sets_section(run: Run, split: str) -> SetsSection | None:
    """The sets of a split, calibrated by the run's own images. None where a run has no scores of it, or no
    images to calibrate."""
    if not set_sources(run, split):
        return None
    try:
        images = calibration_images(run.folder, run.record)
        tested = Predictions.of_arrays(run.folder.load_predictions(split))
    except UnreadableRun as error:
        return SetsSection(split, why=f"The sets are left out: {error}")
    except ConfigError:  # answers without scores
        return None
    k = len(run.classes)
    if tested.kind != "logits" or tested.scores.shape[1] != k or not len(tested.labels):
        return None
    return _section(run, split, images, tested.calibrated(run.record.temperature))


def set_sources(run: Run, split: str) -> list[Path]:
    """The files that the sets are made from; none where there are no sets."""
    try:
        source = calibration_split(run.folder, run.record)
    except ConfigError:
        return []
    sizes, k = run.record.data.sizes, len(run.classes)
    if source == split or max(sizes.get(source, 0), sizes.get(split, 0)) * k > VALUES:
        return []
    file = run.folder.predictions(split)
    return [run.folder.predictions(source), file] if file.is_file() else []


def _section(run: Run, split: str, images: CalibrationImages, tested: Predictions) -> SetsSection:
    probabilities = tested.probabilities
    u = uniform_of(row_keys(probabilities), IMAGE_DRAWS)
    at = [_at(run, coverage, images, tested, probabilities, u) for coverage in COVERAGES]
    rows = [
        (class_name(run, c), first.n, [each.scores.by_class[c] for each in at])
        for c, first in enumerate(at[0].scores.by_class)
        if first.n
    ]
    lowest = sorted(rows, key=lambda row: min(each.value for each in row[2]))[:CLASSES]
    shown = rows if len(rows) <= CLASSES else lowest
    n = len(images.scores)
    return SetsSection(split, at, n, images.source, images.caveat, shown, len(rows) - len(shown))


def _at(
    run: Run,
    coverage: float,
    images: CalibrationImages,
    tested: Predictions,
    probabilities: Floats,
    u: Floats,
) -> SetsAtCoverage:
    sets = guarantees_of(Wanted(coverage), images, run.classes).sets
    assert sets is not None
    scores = set_scores(sets.of(probabilities, u), tested.labels)
    expected = None if sets.unbounded else expected_coverage(len(images.scores), coverage)
    return SetsAtCoverage(coverage, scores, class_name(run, scores.worst_class), expected)
