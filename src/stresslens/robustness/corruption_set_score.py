"""The errors of a run on a published set of corrupted images, and their mean corruption error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import write_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import read_record, write_record
from stresslens.evaluation.saved_model import as_computed, frame_of, open_model
from stresslens.metrics.corruption_error import ALEXNET, corruption_errors
from stresslens.metrics.intervals import wilson
from stresslens.robustness.corruption_set import CorruptionSet, corruption_set, wrong_answers

ALEXNET_NAME = "alexnet"
"""What names the published errors of AlexNet on ImageNet-C, in place of a run."""
CLASSES_OF_IMAGENET = 1000

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class CorruptionSetScore:
    """The errors of a run under each corruption of a set."""

    name: str
    n: int
    """Images in each cell."""
    errors: Mapping[str, Sequence[Estimate]]
    """The error at each severity."""
    corruption_errors: Mapping[str, float]
    """CE of the corruptions that count."""
    mean: Estimate
    """Their mean: the mean corruption error, relative if there is a baseline."""
    baseline: str | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "set": self.name,
            "n": self.n,
            "errors": {name: [each.as_json() for each in cells] for name, cells in self.errors.items()},
            "corruption_errors": dict(self.corruption_errors),
            "mean_corruption_error": self.mean.as_json(),
            "baseline": self.baseline,
            "notes": list(self.notes),
        }


def score_corruption_set(
    run: RunFolder,
    path: Path,
    *,
    baseline: str | None = None,
    images: int | None = None,
    trust: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> CorruptionSetScore:
    """Measures a run on the set in a folder, and writes corruption-sets/NAME.json into the run.

    `baseline` is another run's folder, which is measured on the same images, or "alexnet" for the
    published errors on ImageNet-C. The mean is over the fifteen corruptions of the benchmark that are
    there, or over all of a set of others. Raises DataError for a set that is not for this model, and
    ConfigError for alexnet where the model's classes are not ImageNet's.
    """
    if baseline == ALEXNET_NAME and len(run.load_card().classes) != CLASSES_OF_IMAGENET:
        raise ConfigError(
            f"baseline: the errors of {ALEXNET_NAME} are those on ImageNet-C, and {run.path} has "
            f"{len(run.load_card().classes)} classes; give a run on its own data set"
        )
    found, wrong = _measured(run, path, images, trust, on_progress)
    counted = [name for name in found.corruptions if name in ALEXNET] or list(found.corruptions)
    of_baseline = _baseline(baseline, path, images, trust, on_progress)
    rows = [found.corruptions.index(name) for name in counted]
    relative, mean = corruption_errors(wrong[rows], counted, of_baseline)
    score = CorruptionSetScore(
        found.name,
        wrong.shape[2],
        {
            name: [wilson(int(cell.sum()), len(cell)) for cell in cells]
            for name, cells in zip(found.corruptions, wrong)
        },
        relative,
        mean,
        baseline,
        (*found.notes, *_notes(found, counted)),
    )
    with run.locked():
        record = read_record(run)
        record.reads_of_test += 1
        write_record(run, record)
        write_json(run.path / "corruption-sets" / f"{found.name}.json", score.as_json())
    return score


def _measured(
    run: RunFolder, path: Path, images: int | None, trust: bool, on_progress: OnProgress
) -> tuple[CorruptionSet, NDArray[np.bool_]]:
    card, device = run.load_card(), pick_device("auto")
    frame = None
    with suppress(DataError):  # a model of two or five channels takes arrays only
        frame = frame_of(run)
    found = corruption_set(path, card.classes, card.shape, frame)
    model = as_computed(open_model(run, trust=trust), run).to(device)
    return found, wrong_answers(model, found, asked=images, device=device, on_progress=on_progress)


def _baseline(
    baseline: str | None, path: Path, images: int | None, trust: bool, on_progress: OnProgress
) -> Mapping[str, float] | None:
    """The mean error over severities of the baseline, by corruption."""
    if baseline is None or baseline == ALEXNET_NAME:
        return ALEXNET if baseline else None
    found, wrong = _measured(RunFolder(Path(baseline)), path, images, trust, on_progress)
    return dict(zip(found.corruptions, wrong.mean((1, 2)).tolist()))


def _notes(found: CorruptionSet, counted: Sequence[str]) -> list[str]:
    """What keeps the mean from being comparable with a paper's."""
    others = [name for name in found.corruptions if name not in counted]
    missing = [name for name in ALEXNET if name not in found.corruptions]
    notes = [f"not in the mean, as in papers: {', '.join(others)}"] if others else []
    if len(missing) == len(ALEXNET):
        notes.append("none of the fifteen corruptions of the benchmark is here; the mean is over all")
    elif missing:
        notes.append(
            f"the mean is over {len(counted)} of the fifteen corruptions of the benchmark, and not "
            f"comparable with papers; missing: {', '.join(missing)}"
        )
    return notes
