"""The errors of a run on a published set of corrupted images, and their mean corruption error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

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
    runs = [run, *([] if baseline in (None, ALEXNET_NAME) else [RunFolder(Path(str(baseline)))])]
    opened = [_opened(each, path, trust) for each in runs]
    found = opened[0].images
    counted = [name for name in found.corruptions if name in ALEXNET] or list(found.corruptions)
    if baseline == ALEXNET_NAME and counted[0] not in ALEXNET:
        raise ConfigError(
            f"baseline: {path} has none of the fifteen corruptions for which errors of {ALEXNET_NAME} are "
            f"published (it has {', '.join(counted)}); give a run as the baseline"
        )
    wrong, *others = _wrong_answers(opened, images, on_progress)
    of_baseline = ALEXNET if baseline == ALEXNET_NAME else None
    if others:
        of_baseline = dict(zip(opened[1].images.corruptions, others[0].mean((1, 2)).tolist()))
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


class _Opened(NamedTuple):
    """A run's model, and the set as it takes it; `form` decides which arrays these are."""

    form: tuple[Any, ...]
    images: CorruptionSet
    model: nn.Module


def _opened(run: RunFolder, path: Path, trust: bool) -> _Opened:
    card = run.load_card()
    frame = None
    with suppress(DataError):  # a model of two or five channels takes arrays only
        frame = frame_of(run)
    form = tuple(card.classes), tuple(card.shape), frame
    model = as_computed(open_model(run, trust=trust), run).to(pick_device("auto"))
    return _Opened(form, corruption_set(path, card.classes, card.shape, frame), model)


def _wrong_answers(
    opened: Sequence[_Opened], asked: int | None, on_progress: OnProgress
) -> list[NDArray[np.bool_]]:
    """(corruptions, severities, n) for each run. Runs that take the same arrays are asked together, so that
    the images are read once."""
    device = pick_device("auto")
    together = [opened] if len({each.form for each in opened}) == 1 else [[each] for each in opened]
    return [
        wrong
        for runs in together
        for wrong in wrong_answers(
            [each.model for each in runs], runs[0].images, asked=asked, device=device, on_progress=on_progress
        )
    ]


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
