"""A run's predictions on a split, and the runs of a study that have predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.config.study_record import read_study_record
from stresslens.core.answers import predicted
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import DivisionRecord, RunRecord, read_record

ROUNDING = 1e-5
"""Largest relative difference of two losses that are equal up to rounding."""

VariantFolders = Mapping[str, Mapping[str, RunFolder]]
"""Each variant's finished runs. Runs of two variants with the same key (`seed-0`) form a pair."""

ONLY_RUN = "weights"
"""The key of a run that is compared alone, whatever its seed, so that runs of different seeds are a pair."""


@dataclass(frozen=True)
class Tested:
    """One run's predictions on a split: `right` and `labels` (images,), with the run's record."""

    right: NDArray[np.bool_]
    labels: NDArray[np.int64]
    split: str
    record: RunRecord

    @property
    def under(self) -> str:
        """The attack on the images before they were classified, in words; empty without one."""
        return ""

    @property
    def measure(self) -> str:
        """What the share of `right` is, in words."""
        return "accuracy"

    @property
    def figure(self) -> float:
        """The run's own figure, of which differences are tested."""
        return float(self.right.mean())

    @property
    def threat(self) -> str:
        """A full key of the attack. Two runs can be compared under one attack only if it is equal;
        `under` leaves some options out."""
        return ""

    @property
    def division(self) -> DivisionRecord | None:
        """How this seed's images were divided into training and test; None if all seeds have the
        same test images."""
        return self.record.data.division if self.split == "test" else None

    def mismatch(self, other: Tested) -> str | None:
        """Why this run cannot be compared with another, in words: their images differ. None if they
        are the same."""
        reason = self._other_images(other)
        return f"their {self.split} images differ ({reason})" if reason else None

    def _other_images(self, other: Tested) -> str | None:
        mine, theirs = (each.record.data.name for each in (self, other))
        both = mine if mine == theirs else f"{mine} and {theirs}"
        if len(self.labels) != len(other.labels):
            return f"{len(self.labels)} {self.split} images of {mine} against {len(other.labels)} of {theirs}"
        if len(changed := np.flatnonzero(self.labels != other.labels)):
            return (
                f"{len(changed)} of {len(self.labels)} images of {both} differ in label, "
                f"the first at {changed[0]}"
            )
        first, second = (each.record.data.splits.get(self.split) for each in (self, other))
        if first and second and first != second:
            return (
                f"as many images and the same labels, but other pixels: {both}, "
                f"fingerprints {first} and {second}"
            )
        return None


def same_function(first: RunRecord, second: RunRecord) -> bool:
    """Whether two networks compute the same from equal weights: their layers differ in type alone,
    and before any update both have the same loss on the same images."""
    loss, other = first.training.first_loss, second.training.first_loss
    if first.layers is None or second.layers is None or loss is None or other is None:
        return False
    rows, others = first.layers.layers, second.layers.layers
    if [(row.output, row.parameters) for row in rows] != [(row.output, row.parameters) for row in others]:
        return False
    types = [row.type for row in rows], [row.type for row in others]
    return types[0] != types[1] and math.isclose(loss, other, rel_tol=ROUNDING)


def tested_of(folder: RunFolder, split: str) -> Tested:
    """A run's results from its saved predictions. Raises UnreadableRun."""
    arrays = folder.load_predictions(split)
    return Tested(
        predicted(arrays["scores"]) == arrays["labels"], arrays["labels"], split, read_record(folder)
    )


def with_test_images(record: RunRecord, count: int) -> RunRecord:
    """The record, whose division of the data, if it has one of its own, has `count` test images."""
    if record.data.division is None:
        return record
    division = record.data.division.model_copy(update={"test": count})
    return record.model_copy(update={"data": record.data.model_copy(update={"division": division})})


def variants_of(folder: Path, has_results: Callable[[RunFolder], bool]) -> VariantFolders:
    """The runs and seeds that a study's study.json lists, if `has_results` says that the run has
    something to compare."""
    study = read_study_record(folder)
    folders = {
        run: [RunFolder(folder / run / f"seed-{seed}") for seed in study.seeds_of(run)] for run in study.runs
    }
    return {
        run: {each.path.name: each for each in seeds if has_results(each)} for run, seeds in folders.items()
    }
