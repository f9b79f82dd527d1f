"""Runs that another run of the same folder takes the place of: they are kept in `earlier/` beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

FOLDER = "earlier"


def place_aside(run: Path, name: str) -> Path:
    """A free path where a run's folder can be kept: `earlier/<name>-<seed>` beside it, under a further
    number where that exists. Reports and comparisons leave such runs out."""
    home = run.parent / FOLDER
    home.mkdir(exist_ok=True)
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (home / f"{name}-{run.name}{suffix}" for suffix in suffixes)
    return next(place for place in places if not place.exists())
