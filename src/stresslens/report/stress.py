"""Read the results of attacks, corruptions and certificates from a run's folder. A damaged file is
listed, and the rest is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import ValidationError

from stresslens.core.files import UnreadableRun, read_json
from stresslens.core.json_file import JsonFile, first_problem
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Arrays
from stresslens.explanation.map_file import MAP_ARRAYS
from stresslens.robustness.certificate_file import RADII, CertificateFile
from stresslens.robustness.corruption_file import CorruptionFile
from stresslens.robustness.example_file import AdversarialExample
from stresslens.robustness.result_file import (
    RESULT_ARRAYS,
    IndividualAttackCurve,
    ResultFile,
    attacked_images,
)

Kind = TypeVar("Kind", bound=JsonFile)

ARRAY_FILES = {"robustness": RESULT_ARRAYS, "certificates": RADII, "explanations": MAP_ARRAYS}
"""The folders of a run whose results hold arrays."""
NEEDED = ("index", "labels", "smallest", "by", "names", "steps")


@dataclass(frozen=True)
class AttackFolder:
    """One attack result of one run, with its arrays if they can be read and match it."""

    folder: Path
    result: ResultFile

    @cached_property
    def arrays(self) -> Arrays | None:
        try:
            arrays = attacked_images(RESULT_ARRAYS.read(self.folder / "result.npz", only=NEEDED))
        except UnreadableRun:
            return None
        lengths = {len(arrays[name]) for name in NEEDED if name != "names"}
        return arrays if lengths == {self.result.n} else None

    @property
    def attempts(self) -> list[str]:
        """Every attempt to break an image, in order: the individual attacks, then the
        protocol's."""
        if self.arrays is not None:
            return [str(name) for name in self.arrays["names"]]
        return [
            *(each.label for each in self.result.individual_attacks),
            *(each.label or each.name for each in self.result.attacks),
        ]

    @property
    def individual_attacks(self) -> list[IndividualAttackCurve]:
        return [each for each in self.result.individual_attacks if each.rows]

    @cached_property
    def examples(self) -> list[AdversarialExample]:
        try:
            return [
                AdversarialExample.model_validate(entry)
                for entry in read_json(self.folder / "examples" / "examples.json")
            ]
        except (UnreadableRun, ValidationError, TypeError):
            return []


@dataclass(frozen=True)
class CertificateFolder:
    """One certificate result of one run. `radius` (n,) is each image's certified radius, negative
    if the prediction is wrong, NaN if the model abstained."""

    folder: Path
    result: CertificateFile

    @cached_property
    def radius(self) -> NDArray[Any] | None:
        try:
            found = RADII.read(self.folder / "result.npz")["radius"]
        except UnreadableRun:
            return None
        return found if len(found) == self.result.n else None


@dataclass(frozen=True)
class Stress:
    """A run's results besides its scores; `damaged` lists the files that could not be read."""

    robust: list[AttackFolder]
    corruptions: CorruptionFile | None
    certificates: list[CertificateFolder]
    damaged: list[str]


def stress_of(folder: RunFolder) -> Stress:
    damaged: list[str] = []

    def read(path: Path, kind: type[Kind]) -> Kind | None:
        try:
            return kind.model_validate(read_json(path))
        except (UnreadableRun, ValidationError) as error:
            why = (
                first_problem(error) if isinstance(error, ValidationError) else str(error.__cause__ or error)
            )
            damaged.append(f"{path.relative_to(folder.path)}: {why}")
            return None

    def under(name: str, make: Callable[[Path], Any]) -> list[Any]:
        return [
            made
            for file in sorted((folder.path / name).glob("*/result.json"))
            if (made := make(file)) is not None
        ]

    def robust(file: Path) -> AttackFolder | None:
        result = read(file, ResultFile)
        return AttackFolder(file.parent, result) if result else None

    def certificate(file: Path) -> CertificateFolder | None:
        result = read(file, CertificateFile)
        return CertificateFolder(file.parent, result) if result else None

    for schema, name in (
        (RESULT_ARRAYS, "robustness"),
        (RADII, "certificates"),
        (MAP_ARRAYS, "explanations"),
    ):
        for file in sorted((folder.path / name).glob("*/*.npz")):
            try:
                if file.with_name("result.json").is_file():
                    schema.read(file)
            except UnreadableRun as error:
                damaged.append(str(error).replace(f"{folder.path}/", ""))
    results = under("robustness", robust)
    certificates = under("certificates", certificate)
    corrupted = folder.path / "corruptions" / "result.json"
    return Stress(
        results, read(corrupted, CorruptionFile) if corrupted.is_file() else None, certificates, damaged
    )
