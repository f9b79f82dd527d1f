"""Runs that another run of the same folder takes the place of: they are kept in `earlier/` beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

FOLDER = "earlier"


def set_aside(run: Path, name: str) -> Path:
    """Moves a run's folder to `earlier/<name>-<seed>` beside it, under a further number where that
    exists, and returns its new path. Reports and comparisons leave it out."""
    home = run.parent / FOLDER
    home.mkdir(exist_ok=True)
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (home / f"{name}-{run.name}{suffix}" for suffix in suffixes)
    place = next(place for place in places if not place.exists())
    run.rename(place)
    return place
