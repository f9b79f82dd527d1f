"""study.json: the runs and seeds of a study's folder, and what is compared, as a study file asked for them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stresslens.core.json_file import JsonFile

FILE = "study.json"


class StatedClaim(JsonFile):
    """What a study file concludes from a contrast: that b is better in each of its `pairs` (a, b).

    `protocol` is a study that repeats how the claim was first made.
    """

    contrast: str
    claim: str
    protocol: str | None = None
    pairs: list[tuple[str, str]] = []


class SizeCurve(JsonFile):
    """The runs of a data-size curve, each with its size."""

    name: str
    runs: list[tuple[int, str]]


class StudyRecord(JsonFile):
    """study.json. A contrast is its name, a and b; `head` is the comment at the head of the study file."""

    format: Literal[1] = 1
    name: str = ""
    runs: list[str] = []
    seeds: list[int] = []
    contrasts: list[tuple[str, str, str]] = []
    claims: list[StatedClaim] = []
    curves: list[SizeCurve] = []
    command: list[str] = []
    source: str | None = None
    head: str = ""


def read_study_record(folder: Path) -> StudyRecord:
    """The study.json of a study's folder. Raises UnreadableRun."""
    return StudyRecord.read(folder / FILE)
