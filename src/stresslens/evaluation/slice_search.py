"""The search for slices of low accuracy among the images of a run's split, and pictures of what it
finds."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.answers import predicted
from stresslens.core.data import Split
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.evaluation.example_images import classified_images, save_sheet
from stresslens.evaluation.ood import Features
from stresslens.evaluation.scores import Predictions, right
from stresslens.evaluation.slice_record import FoundSlice, FoundSlices, SliceMember
from stresslens.metrics.slice_discovery import LEAST, DiscoveredSlice, discover_slices

SHOWN, FREQUENT = 12, 3
"""Typical images of a slice that are kept, and classes and errors that are named."""


def search_slices(
    folder: RunFolder,
    name: str,
    split: Split,
    predictions: Predictions,
    sample: Features,
    rows: NDArray[np.int64],
) -> FoundSlices:
    """Searches slices among the images at `rows` of the split, whose features are `sample`, and writes
    pictures of what is found into the run's folder.

    Slices are searched among the inputs of the last linear layer and among small pictures (8×8 pixels);
    for an estimator among small pictures alone.
    """
    kept = rows[sample.measurable]
    sample = sample.select(sample.measurable)
    home = folder.slices(name)
    shutil.rmtree(home, ignore_errors=True)
    if len(kept) < LEAST:
        why = f"{len(kept)} images are too few; {LEAST} is the least"
        return FoundSlices(looked=0, tested=0, clusters=0, candidates=0, size=0, gap=None, why_not=why)
    features = {"network": sample.features, "pictures": sample.coarse}
    if isinstance(folder.load_card(), EstimatorCard):
        del features["network"]
    found = discover_slices(
        {kind: values.astype(np.float64) for kind, values in features.items()}, right(predictions)[kept]
    )
    answers = predicted(predictions.scores)
    slices = [_record_of(each, kept, split, predictions, answers, name) for each in found.slices]
    if slices:
        shown = {f"slice {k}": [member.index for member in each.members] for k, each in enumerate(slices)}
        save_sheet(home, split, classified_images(predictions, shown))
    return FoundSlices(
        looked=found.looked,
        tested=found.tested,
        clusters=found.clusters,
        candidates=found.candidates,
        size=found.size,
        gap=found.gap if math.isfinite(found.gap) else None,
        slices=slices,
    )


def _record_of(
    found: DiscoveredSlice,
    kept: NDArray[np.int64],
    split: Split,
    predictions: Predictions,
    answers: NDArray[Any],
    name: str,
) -> FoundSlice:
    rows = kept[found.members]
    truths = predictions.labels[rows].tolist()
    wrong = [(int(t), int(a)) for t, a in zip(truths, answers[rows]) if t != a]
    files = split.columns.get("file")
    return FoundSlice(
        features=found.features,
        accuracy=found.accuracy,
        rest=found.rest,
        gap=found.gap,
        p=found.p,
        p_holm=found.p_holm,
        classes=_most_frequent(truths),
        mistakes=[(t, a, n) for (t, a), n in _most_frequent(wrong)],
        members=[
            SliceMember(
                index=int(row),
                image=f"{name}[{row}]" if files is None else str(files[row]),
                truth=int(predictions.labels[row]),
                predicted=int(answers[row]),
            )
            for row in rows[:SHOWN]
        ],
    )


def _most_frequent(values: Sequence[Any]) -> list[tuple[Any, int]]:
    """The most frequent values with their counts; of equal counts the smaller value first."""
    return sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))[:FREQUENT]
