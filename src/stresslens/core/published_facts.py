"""What is published of a data set, with its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UNKNOWN = "not known to us"
"""Stands where we are not sure; no card guesses."""


@dataclass(frozen=True)
class PublishedFacts:
    """What is published of a data set; `UNKNOWN` where we are not sure."""

    title: str
    source: str
    """The paper."""
    images: Mapping[str, int]
    """Images of each part as published; "all" for a set without parts."""
    classes: int
    pictures: str
    """Size in pixels (width×height) and colours."""
    licence: str = UNKNOWN
    duplicates: str = UNKNOWN
    """Copies of test images among the training images, with the source."""
    label_noise: str = UNKNOWN
    """Wrong labels, with the source."""
    notes: tuple[str, ...] = ()
    test: str = "test"
    """The published part that is the test part here."""
