"""study.json in the folder of a study: its variants, seeds and contrasts, as the study file gives
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stresslens.config.run_names import ShortNames, short_names
from stresslens.core.json_file import JsonFile

FILE = "study.json"


ClaimOf = Literal["accuracy", "robustness", "sameness"]
"""What a claim says: a better accuracy on clean images, a better robust accuracy, or the same accuracy
within the contrast's margin."""


class StatedClaim(JsonFile):
    """The claim of a contrast: b is better in each of its `pairs` (a, b), in `of`; or a and b are the same.

    `protocol` is the name of the study that repeats the original procedure.
    """

    LATER_KEYS = frozenset({"of"})

    contrast: str
    claim: str
    of: ClaimOf = "accuracy"
    protocol: str | None = None
    pairs: list[tuple[str, str]] = []


class SizeCurve(JsonFile):
    """The variants of a data-size curve, each with its size in images."""

    name: str
    runs: list[tuple[int, str]]


class StatedIngredient(JsonFile):
    """An ingredient of an ablation: its settings by dotted key, with it and, where they are stated, without
    it. `left_out` is the pair (the full recipe without it, the full one), `added` is (the bare recipe, the
    bare one with it); None where this side was not asked for."""

    name: str
    with_it: dict[str, Any] = {}
    without_it: dict[str, Any] = {}
    left_out: tuple[str, str] | None = None
    added: tuple[str, str] | None = None


class StatedAblation(JsonFile):
    """The variants of an ablation: the full recipe (None where ingredients exclude each other), the bare one,
    and those of each ingredient. `kept` are the settings that are the same in all runs, though the recipe
    sets them, with why."""

    full: str | None
    bare: str
    ingredients: list[StatedIngredient] = []
    kept: dict[str, str] = {}

    def renamed(self, names: Mapping[str, str]) -> StatedAblation:
        """With other names of variants."""

        def pair(of: tuple[str, str] | None) -> tuple[str, str] | None:
            return None if of is None else (names.get(of[0], of[0]), names.get(of[1], of[1]))

        ingredients = [
            each.model_copy(update={"left_out": pair(each.left_out), "added": pair(each.added)})
            for each in self.ingredients
        ]
        ends = {"full": self.full and names.get(self.full, self.full)}
        ends["bare"] = names.get(self.bare, self.bare)
        return self.model_copy(update={**ends, "ingredients": ingredients})


class StudyRecord(JsonFile):
    """study.json. A contrast is (name, a, b); `head` is the comment at the top of the study file.

    `own_names` are the names of the variants as the study file has them, by the names of their
    folders, which also hold the overrides of the command line; `overrides` are these, likewise.
    `seeds` are those of any variant; `own_seeds` are those of a variant that was not asked for with
    all of them. `metrics` are the further ones that judge the contrasts.
    """

    REMEDY = "the command of the study (`stresslens run` or `train`) writes it anew"

    LATER_KEYS = frozenset({"own_names", "overrides", "own_seeds", "margins", "metrics", "ablation"})

    format: Literal[1] = 1
    name: str = ""
    runs: list[str] = []
    own_names: dict[str, str] = {}
    overrides: dict[str, list[str]] = {}
    seeds: list[int] = []
    own_seeds: dict[str, list[int]] = {}
    contrasts: list[tuple[str, str, str]] = []
    margins: dict[str, float] = {}
    metrics: list[str] = []
    ablation: StatedAblation | None = None
    claims: list[StatedClaim] = []
    curves: list[SizeCurve] = []
    command: list[str] = []
    source: str | None = None
    head: str = ""

    def seeds_of(self, run: str) -> list[int]:
        """The seeds that a variant was asked for with; a variant that is not listed has none."""
        return self.own_seeds.get(run, self.seeds) if run in self.runs else []


def read_study_record(folder: Path) -> StudyRecord:
    """The study.json of a study's folder. Raises UnreadableRun."""
    return StudyRecord.read(folder / FILE)


def short_names_of(study: StudyRecord | None, folders: Sequence[str]) -> ShortNames:
    """The short names of the variants of a study in these folders."""
    return short_names(folders, study.own_names, study.overrides) if study else short_names(folders)
