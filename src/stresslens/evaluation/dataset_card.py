"""The card of a data set: what is published of it, or what it holds, and how much of a score is chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.published_facts import UNKNOWN, PublishedFacts
from stresslens.metrics.intervals import wilson

ACCURACIES = (0.95, 0.8, 0.5)
DRAWN = 0.2
"""The share of a set without parts that is drawn as test images by default."""


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set."""

    name: str
    published: bool
    """Whether the figures are published ones; else they were counted."""
    images: Mapping[str, int]
    classes: int
    pictures: str
    licence: str
    duplicates: str
    label_noise: str
    notes: tuple[str, ...]
    test_images: int
    test_is: str
    """Which images these are, where they are not a part called test."""

    @property
    def chance(self) -> dict[float, float]:
        """For some accuracies, the points of an accuracy on the test images that are chance: half of
        Wilson's 95 % interval. Empty without test images."""
        if not self.test_images:
            return {}
        found = {each: wilson(round(each * self.test_images), self.test_images) for each in ACCURACIES}
        return {each: 50 * (estimate.high - estimate.low) for each, estimate in found.items()}

    def as_json(self) -> dict[str, Any]:
        points = {f"{accuracy:g}": round(half, 3) for accuracy, half in self.chance.items()}
        return {**asdict(self), "points_of_chance_at_accuracy": points}

    def rows(self) -> dict[str, str]:
        """The card as a person reads it: names of lines and their texts."""
        images = ", ".join(f"{part} {count:,}" for part, count in self.images.items())
        return {
            "data set": self.name,
            "images as published" if self.published else "images here": images,
            "classes": f"{self.classes:,}",
            "pictures": self.pictures,
            "licence as published": self.licence,
            "copies of test images in train": self.duplicates,
            "wrong labels": self.label_noise,
            **({"note": "; ".join(self.notes)} if self.notes else {}),
            "noise floor": self._noise_floor(),
        }

    def _noise_floor(self) -> str:
        if not self.chance:
            return "there are no test images"
        (first, half), *others = self.chance.items()
        rest = "".join(f", at {accuracy * 100:.0f} % {points:.1f}" for accuracy, points in others)
        return (
            f"{self.test_images:,} test images{self.test_is}: at an accuracy of {first * 100:.0f} %, "
            f"{half:.1f} points are chance{rest} (half of the 95 % interval over images); another seed "
            "adds to it"
        )


def card_of(value: Any, load: Callable[[], Data]) -> DatasetCard:
    """The card of a data set by its plain value. `load` is called only where nothing is published.
    Raises what loading raises, and ConfigError for a wrong name or option."""
    facts = published_facts(value)
    return _of_data(load()) if facts is None else _of_facts(facts)


def published_facts(value: Any) -> PublishedFacts | None:
    """What is published of a data set by its plain value; None where nothing is known. Raises ConfigError
    for a wrong name or option."""
    facts = registry.resolve("datasets", value, base=Path.cwd()).answer_beside("facts")
    return facts if isinstance(facts, PublishedFacts) else None


def _of_facts(facts: PublishedFacts) -> DatasetCard:
    test = facts.images.get(facts.test)
    how = "" if facts.test == "test" else f" (its {facts.test} part, which is the test part here)"
    if test is None:
        test, how = math.ceil(DRAWN * facts.images["all"]), " (a fifth of all, as drawn by default)"
    return DatasetCard(
        f"{facts.title} ({facts.source})",
        True,
        dict(facts.images),
        facts.classes,
        facts.pictures,
        facts.licence,
        facts.duplicates,
        facts.label_noise,
        facts.notes,
        test,
        how,
    )


def _of_data(data: Data) -> DatasetCard:
    channels, height, width = data.shape
    return DatasetCard(
        data.name,
        False,
        {name: len(split) for name, split in data.splits.items()},
        len(data.classes),
        f"{width}×{height}, {channels} {'channel' if channels == 1 else 'channels'}",
        UNKNOWN,
        f"{UNKNOWN}; `stresslens data check` looks for them",
        UNKNOWN,
        data.notes,
        len(data.test) if data.test is not None else 0,
        "",
    )
