"""The detectors of out-of-distribution images on named sets, as record.json holds them."""

from __future__ import annotations

from stresslens.core.json_file import Figure, OrderedJsonFile


class DetectorScores(OrderedJsonFile):
    """A detector on one set. `auroc` is of telling the set's images from those of the split, `aupr` the
    average precision of finding them; `fpr95` is the share of the set that passes a threshold which 95 % of
    the validation images pass, and `kept` the share of the split that does. Without validation images the
    latter two are None."""

    auroc: Figure
    aupr: Figure
    fpr95: Figure | None = None
    kept: Figure | None = None


class DetectorDifference(OrderedJsonFile):
    """The AUROC of the best detector of a set minus that of another one, paired over the images; p of no
    difference, and after Holm's correction over all pairs of detectors."""

    auroc: Figure
    p: float
    p_holm: float


class OODSetRecord(OrderedJsonFile):
    """`n` images of a set of `images`; the detectors by name, and what the best is compared with."""

    n: int
    images: int
    note: str = ""
    detectors: dict[str, DetectorScores] = {}
    best: str = ""
    differences: dict[str, DetectorDifference] = {}
    verdict: str = ""

    @property
    def ranked(self) -> list[tuple[str, DetectorScores]]:
        """The detectors, the highest AUROC first."""
        return sorted(self.detectors.items(), key=lambda each: -each[1].auroc.value)


class OODRecord(OrderedJsonFile):
    """The sets by name, against `n` images of a split of the run; the thresholds are of `validation`
    images. `refused` says why a detector cannot be used with this model. `other_split` are the sets that
    were scored before beside the other split."""

    LATER_KEYS = frozenset({"other_split"})

    split: str
    n: int
    fitted_on: int = 0
    validation: int = 0
    sets: dict[str, OODSetRecord] = {}
    refused: dict[str, str] = {}
    other_split: OODRecord | None = None

    @property
    def by_split(self) -> dict[str, OODRecord]:
        """What was found beside each split, the latest first."""
        return {each.split: each for each in (self, self.other_split) if each is not None}
