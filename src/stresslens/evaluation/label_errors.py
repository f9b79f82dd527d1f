"""Labels that are probably wrong, from predictions of models that were not trained on the image, and how
many of planted flips the same search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.answers import answered, predicted
from stresslens.core.cards import card, pictures, sentences
from stresslens.core.data import Split
from stresslens.core.format import percent_sign
from stresslens.core.panels import image_pixels
from stresslens.core.plain_rows import csv_of
from stresslens.core.tables import Percent, ResultTable, Tabular
from stresslens.core.types import Estimate
from stresslens.metrics.classification import Labels
from stresslens.metrics.confident_learning import normalized_margin, probably_wrong
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.planted_flips import FlipKind

CARD_PICTURES = 12
"""Pictures in a card."""


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    `row` is its place among the images that were looked at, and `image` its name. `probability` is that
    of the suggested label, `given_probability` that of the given one, both means over the seeds.
    `agreeing` of the `seeds` with a prediction of the image find it when they are asked alone.
    """

    row: int
    image: str
    given: str
    suggested: str
    probability: float
    given_probability: float
    agreeing: int
    seeds: int


@dataclass(frozen=True)
class PlantedFlips:
    """What the search finds of flips that were planted in the same labels.

    Of `planted` flips it finds `found`, and of these it suggests the label from before for `restored`.
    It finds `flagged` images in all; `before` of them are no flips and are found without flips too.
    """

    kind: FlipKind
    planted: int
    found: int
    restored: int
    flagged: int
    before: int

    @property
    def recall(self) -> Estimate:
        """The share of the planted flips that are found, with Wilson's interval."""
        return wilson(self.found, self.planted)

    @property
    def precision(self) -> Estimate:
        """The share of the flagged images that are planted flips, with Wilson's interval. Labels that
        were wrong before count against it, so it is a lower bound."""
        return wilson(self.found, self.flagged)

    @property
    def sentence(self) -> str:
        told = f"Of {self.planted} planted flips ({self.kind}) {self.found} are found: recall "
        told += f"{percent_sign(self.recall)}"
        if self.found:
            told += f"; for {self.restored} of them the label from before is suggested"
        if not self.flagged:
            return f"{told}."
        told += f". Of {self.flagged} flagged then, {self.found} are planted: precision at least "
        told += percent_sign(self.precision)
        others = self.flagged - self.found
        if others:
            told += f"; of the other {others}, {self.before} are flagged without planted flips too"
        return f"{told}."

    def as_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("planted", "found", "restored", "flagged", "before")}
        rates = {"recall": self.recall.as_json(), "precision": self.precision.as_json()}
        return {"kind": self.kind, **counts, **rates}


@dataclass(frozen=True, repr=False)
class LabelErrors(Tabular):
    """Images whose labels are probably wrong, the surest ones first.

    `images` were looked at, with `seeds` models each that were not trained on them: `models` says which.
    `accuracy` is that of the mean of their probabilities against the given labels. `planted` says what
    the same search finds of planted flips; empty if that was not measured. `split` holds the images.
    """

    name: str
    classes: tuple[str, ...]
    images: int
    seeds: int
    models: str
    accuracy: Estimate
    errors: tuple[LabelError, ...]
    planted: tuple[PlantedFlips, ...] = ()
    not_measured: str = ""
    """Why there are no planted flips, and what measures them, in words."""
    split: Split | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.errors)

    def __repr__(self) -> str:
        return f"LabelErrors({self.name}: {len(self.errors)} of {self.images:,} labels probably wrong)"

    @property
    def sentence(self) -> str:
        found = f"{len(self.errors):,} of" if self.errors else "None of"
        verb = "is" if len(self.errors) == 1 else "are"
        return f"{found} {self.images:,} labels of {self.name} {verb} probably wrong"

    @property
    def sentences(self) -> list[str]:
        """What was looked at, and what of planted flips was found."""
        looked = (
            f"Each image was judged by {self.models}; the mean of their probabilities gives the label of "
            f"{percent_sign(self.accuracy)} of {self.images:,} images."
        )
        measured = [flips.sentence for flips in self.planted]
        if not self.planted:
            measured = [self.not_measured]
        elif not self.errors:
            least = min(self.planted, key=lambda flips: flips.recall.value)
            missed = 1 - least.recall.value
            measured.append(
                f"So none flagged does not mean none wrong: about {100 * missed:.0f} % are missed."
            )
        return [looked, *filter(None, measured)]

    def _repr_html_(self) -> str:
        shown = self.errors[:CARD_PICTURES]
        strip = pictures(self.pixels(shown), [f"{e.given} → {e.suggested}" for e in shown])
        return card(
            f"{self.sentence}.", sentences(self.sentences), strip if shown else "", self._short.html()
        )

    @property
    def _short(self) -> ResultTable:
        columns = ("image", "given", "suggested", "probability", "seeds")
        cells = [
            (e.image, e.given, e.suggested, round(e.probability, 3), f"{e.agreeing} of {e.seeds}")
            for e in self.errors
        ]
        return ResultTable(columns, cells)

    def _table(self) -> ResultTable:
        columns = ("image", "given", "suggested", "probability", "given probability", "agreeing", "seeds")
        cells = [
            (e.image, e.given, e.suggested, e.probability, e.given_probability, e.agreeing, e.seeds)
            for e in self.errors
        ]
        return ResultTable(columns, cells)

    @property
    def recall_table(self) -> ResultTable:
        """A row for each kind of planted flips: recall and precision with their intervals."""
        columns = ("flips", "planted", "found", "recall", "flagged", "precision")
        cells = [
            (f.kind, f.planted, f.found, Percent(f.recall), f.flagged, Percent(f.precision))
            for f in self.planted
        ]
        return ResultTable(columns, cells)

    def pixels(self, errors: Sequence[LabelError]) -> list[NDArray[np.uint8]]:
        """The pictures (H, W) or (H, W, 3) of these images."""
        if self.split is None or not errors:
            return []
        chosen = self.split.select([error.row for error in errors])
        return list(image_pixels(chosen.floats(chosen.images[:])))

    def write_corrections(self, path: str | Path) -> Path:
        """Writes a CSV file with a row for each image: `file`, its `given` label and the suggested `label`.

        Look at the pictures before it is used (`corrections: file.csv` of a data set): delete the rows
        that are right as given, change labels, or write `drop` for an image without a right label.
        """
        columns = ("file", "given", "label", "probability", "agreeing", "seeds")
        cells = (
            (e.image, e.given, e.suggested, f"{e.probability:.4f}", e.agreeing, e.seeds) for e in self.errors
        )
        return Path(csv_of([dict(zip(columns, row)) for row in cells], Path(path), columns))

    def as_json(self) -> dict[str, Any]:
        """What `stresslens data labels --json` prints."""
        return {
            "data": self.name,
            "images": self.images,
            "seeds": self.seeds,
            "models": self.models,
            "accuracy": self.accuracy.as_json(),
            "errors": [
                {key: value for key, value in vars(error).items() if key != "row"} for error in self.errors
            ],
            "planted": [flips.as_json() for flips in self.planted],
            "not_measured": self.not_measured,
        }


def mean_probabilities(probabilities: Floats) -> Floats:
    """(N, K) the mean of the probabilities (S, N, K) over the seeds that have an answer for the image;
    NaN where none has."""
    known = answered(probabilities)
    total = np.where(known[..., None], probabilities, 0.0).sum(0)
    count = known.sum(0)[:, None]
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def flagged(labels: Labels, probabilities: Floats) -> NDArray[np.bool_]:
    """(N,) which labels are probably wrong by probabilities (N, K); an image without an answer is never
    among them."""
    known = answered(probabilities)
    found = np.zeros(len(labels), bool)
    found[known] = probably_wrong(labels[known], probabilities[known])
    return found


def label_errors(
    labels: Labels, probabilities: Floats, classes: Sequence[str], names: Sequence[str]
) -> tuple[LabelError, ...]:
    """The images (N,) whose labels are probably wrong by the out-of-fold probabilities (S, N, K) of S
    seeds, the lowest normalised margin first."""
    mean = mean_probabilities(probabilities)
    rows = np.flatnonzero(flagged(labels, mean))
    alone = np.array([flagged(labels, of_seed) for of_seed in probabilities]).sum(0)
    known = answered(probabilities).sum(0)
    rows = rows[np.argsort(normalized_margin(labels[rows], mean[rows]), kind="stable")]
    suggested = predicted(mean)
    return tuple(
        LabelError(
            row=row,
            image=names[row],
            given=classes[labels[row]],
            suggested=classes[suggested[row]],
            probability=float(mean[row, suggested[row]]),
            given_probability=float(mean[row, labels[row]]),
            agreeing=int(alone[row]),
            seeds=int(known[row]),
        )
        for row in rows.tolist()
    )


def found_flips(
    kind: FlipKind,
    labels: Labels,
    flipped: Labels,
    rows: Labels,
    probabilities: Floats,
    before: NDArray[np.bool_],
) -> PlantedFlips:
    """What is found of flips in rows (M,), by the out-of-fold probabilities (S, N, K) of models that were
    trained on the `flipped` labels (N,); `before` (N,) are the images that are flagged without flips."""
    mean = mean_probabilities(probabilities)
    found = flagged(flipped, mean)
    is_flip = np.zeros(len(labels), bool)
    is_flip[rows] = True
    hit = found & is_flip
    return PlantedFlips(
        kind=kind,
        planted=len(rows),
        found=int(hit.sum()),
        restored=int((predicted(mean)[hit] == labels[hit]).sum()),
        flagged=int(found.sum()),
        before=int((found & ~is_flip & before).sum()),
    )
