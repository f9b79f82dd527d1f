"""The record of a run, record.json: what it was made from, what became of it, and what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import PlainSerializer, ValidationError, model_validator

from stresslens.core.errors import TrainingDiverged
from stresslens.core.files import UnreadableRun, read_json, write_json
from stresslens.core.json_file import Figure, KeptFinding, OrderedJsonFile
from stresslens.core.layer_table import LayerTable
from stresslens.core.pieces import hearing_of_shortages
from stresslens.core.run_folder import FORMAT, RunFolder
from stresslens.evaluation.ensemble_record import EnsembleRecord
from stresslens.evaluation.ood_record import OODRecord
from stresslens.evaluation.slice_record import FoundSlices

ResultKind = Literal["robustness", "certificates", "explanations", "views"]
"""Kinds of results that lie in folders of the run and are named in its record."""


class DivisionRecord(OrderedJsonFile):
    """How a seed's splits were drawn, where every seed draws its own: folds or repeated random
    splits; `train` and `test` are the numbers of images."""

    kind: str
    folds: int | None = None
    fold: int | None = None
    repetition: int | None = None
    train: int = 0
    test: int = 0


FILES = ("files left out", "unreadable files", "empty class folders")
"""Findings on files, from reading them."""


class DataRecord(OrderedJsonFile):
    """The data set: fingerprints and sizes of its splits, and what the check of the data found."""

    LATER_KEYS = frozenset({"copies"})

    name: str = ""
    fingerprint: str = ""
    splits: dict[str, str] = {}
    sizes: dict[str, int] = {}
    notes: list[str] = []
    findings: list[KeptFinding] = []
    copies: dict[str, list[int]] = {}
    """The positions, by split, of images with a copy in an earlier split."""
    division: DivisionRecord | None = None

    def on_files(self) -> list[str]:
        """What the loader said of the files, for example those that were left out, as sentences."""
        return [*self.notes, *("; ".join([f.evidence, f.remedy]) for f in self.findings if f.audit in FILES)]


class Penalty(OrderedJsonFile):
    """A penalty of a linear probe, with accuracy and loss on validation."""

    penalty: float
    accuracy: float | None = None
    loss: float | None = None


ALL_EPOCHS = "all epochs done"
"""Why a training ended that made all its epochs."""


class TrainingRecord(OrderedJsonFile):
    """How the model was trained or fitted, in seconds and bytes; `images` is the number of images
    that an estimator was fitted on, `penalties` are those that a linear probe tried. `first_loss` is
    the loss of the first batch, before any update.

    `peak_memory` is of the run's tensors on a GPU, or else of the whole process, in which earlier runs
    may have left memory behind: `memory_of` says which.
    """

    epochs: int | None = None
    chosen_epoch: int | None = None
    steps: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    images: int | None = None
    stopped: str = ""
    select: str = ""
    first_loss: float | None = None
    peak_memory: int | None = None
    memory_of: Literal["process", "tensors"] = "process"
    penalties: list[Penalty] = []
    skipped_updates: int | None = None
    """Updates that an overflow in float16 has cost."""
    stacked_runs: int | None = None
    """How many runs trained in one program; `seconds` is the share of this one."""

    LATER_KEYS = frozenset({"skipped_updates", "stacked_runs"})


class Scoring(OrderedJsonFile):
    """How long the model's pass over a split took."""

    seconds: float
    images: int


class PerClass(OrderedJsonFile):
    """Scores with a value for each class; `support` are the numbers of images."""

    precision: list[Figure] = []
    recall: list[Figure] = []
    f1: list[Figure] = []
    auroc: list[Figure] = []
    auprc: list[Figure] = []
    support: list[int] = []


class BinRecord(OrderedJsonFile):
    """The images whose highest probability lies between `low` and `high`; `confidence` is its mean
    there. Without images confidence and accuracy are None."""

    low: float
    high: float
    n: int
    confidence: float | None = None
    accuracy: Figure | None = None


class Reliability(OrderedJsonFile):
    """Bins of the probabilities as they are, and after temperature scaling."""

    bins: list[BinRecord]
    calibrated: list[BinRecord] | None = None


class RiskCoverage(OrderedJsonFile):
    """`risk` is the share of errors among the most confident `coverage` of the images."""

    coverage: list[float]
    risk: list[float | None]


class SliceRow(OrderedJsonFile):
    """The accuracy of one group of images."""

    value: str
    n: int
    accuracy: Figure


class SliceRecord(OrderedJsonFile):
    """The accuracies of groups of images; `p` of their being alike, `p_holm` after Holm's correction."""

    by: str
    p: float | None = None
    p_holm: float | None = None
    rows: list[SliceRow]


class Calibration(OrderedJsonFile):
    """The temperature that the logits are divided by, fitted on `n` images of a split.

    It is 1 if the fitted temperature does not help on images that it was not fitted on; `gain` is
    by how much it lowers the cross-entropy of these, in nats.
    """

    temperature: float
    fitted_on: str = "validation"
    n: int | None = None
    fitted: Figure | None = None
    gain: float | None = None
    helps: bool = True

    @property
    def why_not(self) -> str:
        """Why the probabilities are not calibrated; empty if they are."""
        return "" if self.helps else f"{self.n} {self.fitted_on} images do not show a better temperature"


class LikenessRecord(OrderedJsonFile):
    """At what rate images like the training images are called unlike, by `n` validation images;
    None, with the reason in `why`, where it cannot be told."""

    rate: float | None = None
    n: int = 0
    fitted_on: int = 0
    why: str = ""


class WeightsRecord(OrderedJsonFile):
    """The weights that a run started from: what became of their tensors, and of the images before the net."""

    source: str = ""
    said: str = ""
    used: int = 0
    adapted: list[str] = []
    fresh: list[str] = []
    left: list[str] = []
    input: str = ""


class Note(OrderedJsonFile):
    """What happened to a run on its way, in words."""

    kind: str = ""
    message: str = ""


class AveragedRecord(OrderedJsonFile):
    """Test-time augmentation: the `views` over which probabilities were averaged, `passes` of each
    image; by split the scores, the accuracy of the image `alone`, and the `gain` in accuracy over
    it, with a paired interval."""

    views: list[str] = []
    passes: int = 1
    scores: dict[str, dict[str, Figure]] = {}
    alone: dict[str, Figure] = {}
    gain: dict[str, Figure] = {}


class Position(OrderedJsonFile):
    """Where a training was resumed, and by how many processes."""

    epoch: int = 0
    step: int = 0
    processes: int = 1
    backend: str = ""


class Failure(OrderedJsonFile):
    """Why a stage of a run failed, with the exit code of the error's kind. `images` are the training
    images of the batch at which a training diverged."""

    message: str
    exit_code: int = 1
    images: list[int] = []

    @property
    def is_divergence(self) -> bool:
        return self.exit_code == TrainingDiverged.exit_code


class ParentRun(OrderedJsonFile):
    """The run whose training this one went on with: its folder, its epochs, the fingerprint of its
    training, and how often it had read the test split."""

    folder: str
    epochs: int
    fingerprint: str = ""
    reads_of_test: int = 0


class RunRecord(OrderedJsonFile):
    """record.json; everything but the status may be missing while a run is not finished.

    The stages set fields by assignment, so that the record knows which were set.
    """

    LATER_KEYS = frozenset(
        {"failures", "parent", "input", "averaged", "source", "found_slices", "ensemble", "ood"}
    )

    format: Literal[1] = 1
    version: str = ""
    status: str
    message: str = ""
    study: str = ""
    run: str | None = None
    seed: int | None = None
    source: str = ""
    """The file of another program that the predictions were read from; such a run has no model."""
    fingerprint: str = ""
    plugins: list[str] = []
    classes: list[str] = []
    shape: tuple[int, int, int] | None = None
    data: DataRecord = DataRecord()
    reads_of_test: int = 0
    watched_test: bool = False
    resumed_from: list[Position] = []
    findings: list[Note] = []
    stages: dict[str, str] = {}
    """What each finished stage was done for, as a fingerprint."""
    failures: dict[str, Failure] = {}
    """The stages that failed in the last attempt."""
    parent: ParentRun | None = None
    layers: Annotated[LayerTable, PlainSerializer(LayerTable.as_json)] | None = None
    weights: WeightsRecord | None = None
    input: str = ""
    """How images are resized and cropped for a net without initial weights, in words (those of
    `weights` have it themselves)."""
    weights_digest: str = ""
    """RunFolder.weights_digest of the weights that the training wrote."""
    training: TrainingRecord = TrainingRecord()
    scoring: dict[str, Scoring] = {}
    calibration: Calibration | None = None
    scores: dict[str, dict[str, Figure]] = {}
    per_class: dict[str, PerClass] = {}
    confusion: dict[str, list[list[int]]] = {}
    """A row for each true class, a column for each predicted one; a further column counts images
    without an answer, if there are any."""
    risk_coverage: dict[str, RiskCoverage] = {}
    slices: dict[str, list[SliceRecord]] = {}
    found_slices: dict[str, FoundSlices] = {}
    reliability: dict[str, Reliability] = {}
    """By split, like those above."""
    averaged: AveragedRecord | None = None
    likeness: LikenessRecord | None = None
    ensemble: EnsembleRecord | None = None
    ood: OODRecord | None = None
    certificates: list[str] = []
    robustness: list[str] = []
    corruptions: str | None = None
    explanations: list[str] = []
    views: list[str] = []
    """The fingerprints of results, like those above."""

    @property
    def usable(self) -> bool:
        """Whether the run has its model and predictions; an evaluation may have failed (`incomplete`)."""
        return self.status in ("finished", "incomplete")

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where no temperature was fitted, or none helps."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    @model_validator(mode="after")
    def _one_row_per_class(self) -> RunRecord:
        k = len(self.classes)
        for split, rows in self.confusion.items():
            if [len(row) for row in rows] not in ([k] * k, [k + 1] * k):
                raise ValueError(f"the confusion matrix of {split} is not {k} by {k}, the number of classes")
        for split, table in self.per_class.items():
            columns = (table.precision, table.recall, table.f1, table.support)
            if {len(column) for column in columns} != {k} or {len(table.auroc), len(table.auprc)} - {0, k}:
                raise ValueError(
                    f"the table per class of {split} does not have {k} rows, the number of classes"
                )
        return self

    def count_reads(self, kind: ResultKind, results: list[str], split: str) -> None:
        """Names results in the record; each that is not there yet has read its split once."""
        kept: list[str] = getattr(self, kind)
        new = [result for result in dict.fromkeys(results) if result not in kept]
        setattr(self, kind, [*kept, *new])
        self.reads_of_test += len(new) if split == "test" else 0


def read_record(folder: RunFolder) -> RunRecord:
    """A run's record.json. Raises UnreadableRun when it is not one of this format."""
    anew = "the command of the run makes it anew, from checkpoint.pt where there is one"
    values = read_json(folder.record, f"set it aside, and {anew}")
    refused, start_anew = (
        f"{folder.record} is not a record of format {FORMAT}",
        "delete the folder to start anew",
    )
    if not isinstance(values, dict) or not {"format", "status", "stages", "data"} <= values.keys():
        raise UnreadableRun(f"{refused}; {start_anew}")
    try:
        return RunRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "record.json"
        raise UnreadableRun(f"{refused}: {place}: {first['msg']}; {start_anew}") from None


def write_record(folder: RunFolder, record: RunRecord) -> None:
    write_json(folder.record, record.as_json())


@contextmanager
def noting_shortages(record: RunRecord) -> Iterator[None]:
    """Says in the record, once, if memory runs out inside the context and work is done in smaller
    pieces."""

    def note(sentence: str) -> None:
        shortage = Note(kind="memory", message=sentence)
        if shortage not in record.findings:
            record.findings = [*record.findings, shortage]

    with hearing_of_shortages(note):
        yield
