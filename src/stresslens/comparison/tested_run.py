"""What a run answered on a split, and the runs of a study that have answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import DivisionRecord, RunRecord, read_record

Recipes = Mapping[str, Mapping[str, RunFolder]]
"""Each recipe's finished runs; those of two recipes that are named alike (`seed-0`) are a pair."""


@dataclass(frozen=True)
class Tested:
    """What one run answered on a split: right and labels (images,), with the record it comes from."""

    right: NDArray[np.bool_]
    labels: NDArray[np.int64]
    split: str
    record: RunRecord

    @property
    def under(self) -> str:
        """What the images went through before they were answered."""
        return ""

    @property
    def threat(self) -> str:
        """All of what the images went through: equal where `under` is the same and nothing that it
        leaves out differs."""
        return ""

    @property
    def division(self) -> DivisionRecord | None:
        """How the images were divided into training and test for this seed alone; None where all
        seeds have the same test."""
        return self.record.data.division if self.split == "test" else None

    def unlike(self, other: Tested) -> str | None:
        """How what this run was tested on differs from another's, in words; None where it is the same."""
        why = self._other_images(other)
        return f"their {self.split} images differ ({why})" if why else None

    def _other_images(self, other: Tested) -> str | None:
        mine, theirs = (each.record.data.name for each in (self, other))
        both = mine if mine == theirs else f"{mine} and {theirs}"
        if len(self.labels) != len(other.labels):
            return f"{len(self.labels)} {self.split} images of {mine} against {len(other.labels)} of {theirs}"
        if len(changed := np.flatnonzero(self.labels != other.labels)):
            return f"{len(changed)} of {len(self.labels)} images of {both} differ in label, the first at {changed[0]}"
        first, second = (each.record.data.splits.get(self.split) for each in (self, other))
        if first and second and first != second:
            return f"as many images and the same labels, but other pixels: {both}, fingerprints {first} and {second}"
        return None


def tested_of(folder: RunFolder, split: str) -> Tested:
    """A run's answers from its saved predictions. Raises UnreadableRun."""
    arrays = folder.load_predictions(split)
    return Tested(
        arrays["scores"].argmax(1) == arrays["labels"], arrays["labels"], split, read_record(folder)
    )


def recipes_of(folder: Path, there: Callable[[RunFolder], bool]) -> Recipes:
    """The runs and seeds of a study's study.json, those for which there is something to compare."""
    study = read_study_record(folder)
    folders = {run: [RunFolder(folder / run / f"seed-{seed}") for seed in study.seeds] for run in study.runs}
    return {run: {each.path.name: each for each in seeds if there(each)} for run, seeds in folders.items()}
