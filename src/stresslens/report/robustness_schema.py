"""The files that attacks, corruptions and certificates leave, checked; what is damaged is told, and
the rest is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from stresslens.core.files import UnreadableRun, read_arrays, read_json
from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Finding

Kind = TypeVar("Kind", bound=BaseModel)
Arrays = dict[str, NDArray[Any]]

NEEDED = ("index", "labels", "smallest", "by", "names", "steps")


class Attempt(JsonFile):
    """One attack of the worst case, in order."""

    name: str
    label: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class Level(JsonFile):
    """Robust accuracy at a radius."""

    eps: float
    robust: Figure


class AloneRow(JsonFile):
    """`accuracy` is of the images as the attack returned them; `valid` counts only those inside
    ball and box as broken."""

    eps: float
    accuracy: Figure
    top5: Figure | None = None
    valid: Figure | None = None
    outside: int = 0
    silent: int = 0


class Alone(JsonFile):
    """One attack by itself, run to its end at each radius."""

    label: str
    attack: str | dict[str, Any] = ""
    target: Any = None
    rows: Sequence[AloneRow] = ()

    @property
    def name(self) -> str:
        return self.attack if isinstance(self.attack, str) else next(iter(self.attack), "")


class Cost(JsonFile):
    seconds: float | None = None
    forwards: int | None = None
    gradients: int | None = None
    audit_seconds: float | None = None


class Result(JsonFile):
    """robustness/<key>/result.json."""

    format: Literal[1] = 1
    key: str
    norm: Literal["linf", "l2", "l1"]
    radii: list[float]
    protocol: str = "own"
    attacks: Sequence[Attempt] = ()
    split: str = "test"
    n: int
    asked: int | None = None
    seed: int = 0
    target: Any = None
    aimed: bool = False
    classes: int | None = None
    clean: Figure
    reported_clean: float | None = None
    curve: Sequence[Level] = ()
    alone: Sequence[Alone] = ()
    findings: Sequence[Finding] = ()
    cost: Cost = Cost()
    settings: dict[str, Any] = Field(default_factory=dict)


class AttackedExample(JsonFile):
    """An entry of robustness/<key>/examples/examples.json; boxes are left, top, width, height in
    the sheet."""

    file: str
    kind: Literal["first", "spread", "ladder"] = "spread"
    index: int | None = None
    truth: int
    clean_prediction: int
    clean_confidence: float
    prediction: int
    confidence: float
    eps: float
    size: float | None = None
    steps: int | None = None
    attack: str = ""
    original: tuple[int, int, int, int]
    change: tuple[int, int, int, int]
    adversarial: tuple[int, int, int, int]
    scale: float = 1.0
    reduced: bool = False


class Severity(JsonFile):
    severity: int
    accuracy: Figure


class Corruption(JsonFile):
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    severities: Sequence[Severity] = ()


class Corruptions(JsonFile):
    """corruptions/result.json; `mean` is over images, of each the share of all corruptions and
    severities answered right."""

    format: Literal[1] = 1
    split: str = "test"
    n: int
    clean: Figure | None = None
    corruptions: Sequence[Corruption] = ()
    mean: Figure | None = None


class Certified(JsonFile):
    radius: float
    certified: Figure


class Certificates(JsonFile):
    """certificates/<name>-<8 hex>/result.json."""

    format: Literal[1] = 1
    certificate: str
    options: dict[str, Any] = Field(default_factory=dict)
    split: str = "test"
    n: int
    norm: str = "l2"
    abstained: int = 0
    curve: Sequence[Certified] = ()
    smoothed_accuracy: Figure | None = None


class TransferGroup(JsonFile):
    """Rows are the runs that the adversarials were made on, columns the runs that answer them; `n`
    images in each cell."""

    norm: str
    protocol: str
    eps: float
    sources: list[str]
    targets: list[str]
    accuracy: list[list[Figure | None]]


class Transfers(JsonFile):
    """transfers.json of a study."""

    format: Literal[1] = 1
    groups: Sequence[TransferGroup] = ()
    left_out: Sequence[str] = ()
    findings: Sequence[Finding] = ()


@dataclass(frozen=True)
class Robust:
    """One result of one run, with its arrays where they can be read and belong to it."""

    folder: Path
    result: Result

    @cached_property
    def arrays(self) -> Arrays | None:
        try:
            arrays = read_arrays(self.folder / "result.npz", "no arrays", NEEDED)
        except UnreadableRun:
            return None
        lengths = {len(arrays[name]) for name in NEEDED if name != "names"}
        return arrays if lengths == {self.result.n} else None

    @property
    def attempts(self) -> list[str]:
        """Everything that may break an image, in order: the attacks by themselves, then the protocol's."""
        if self.arrays is not None:
            return [str(name) for name in self.arrays["names"]]
        return [
            *(each.label for each in self.result.alone),
            *(each.label or each.name for each in self.result.attacks),
        ]

    @property
    def by_itself(self) -> list[Alone]:
        return [each for each in self.result.alone if each.rows]

    @cached_property
    def examples(self) -> list[AttackedExample]:
        try:
            return [
                AttackedExample.model_validate(entry)
                for entry in read_json(self.folder / "examples" / "examples.json")
            ]
        except (UnreadableRun, ValidationError, TypeError):
            return []


@dataclass(frozen=True)
class Certificate:
    """One result of one run; `radius` (n,) is what each image is certified for, negative where
    wrong, NaN where it abstained."""

    folder: Path
    result: Certificates

    @cached_property
    def radius(self) -> NDArray[Any] | None:
        try:
            found = read_arrays(self.folder / "result.npz", "no arrays", ("radius",))["radius"]
        except UnreadableRun:
            return None
        return found if len(found) == self.result.n else None


@dataclass(frozen=True)
class Stress:
    """What a run went through besides its own images; `damaged` says which files could not be read."""

    robust: list[Robust]
    corruptions: Corruptions | None
    certificates: list[Certificate]
    damaged: list[str]


def stress_of(folder: RunFolder) -> Stress:
    damaged: list[str] = []

    def read(path: Path, kind: type[Kind]) -> Kind | None:
        try:
            return kind.model_validate(read_json(path))
        except (UnreadableRun, ValidationError) as error:
            problem = error.errors()[0] if isinstance(error, ValidationError) else None
            why = (
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                if problem
                else str(error.__cause__ or error)
            )
            damaged.append(f"{path.relative_to(folder.path)}: {why}")
            return None

    def under(name: str, make: Callable[[Path], Any]) -> list[Any]:
        return [
            made
            for file in sorted((folder.path / name).glob("*/result.json"))
            if (made := make(file)) is not None
        ]

    def robust(file: Path) -> Robust | None:
        result = read(file, Result)
        return Robust(file.parent, result) if result else None

    def certificate(file: Path) -> Certificate | None:
        result = read(file, Certificates)
        return Certificate(file.parent, result) if result else None

    results = under("robustness", robust)
    certificates = under("certificates", certificate)
    corrupted = folder.path / "corruptions" / "result.json"
    return Stress(
        results, read(corrupted, Corruptions) if corrupted.is_file() else None, certificates, damaged
    )
