"""Options of guarantees that go with predictions (`predict`, `evaluate`), and their cells in a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import words
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.evaluation.guarantees import Guaranteed, Wanted

Coverage = Annotated[
    float | None,
    typer.Option(
        "--coverage",
        help="Prediction sets that hold the true class of at least this share of images, such as 0.95; "
        "held-out images calibrate them.",
        show_default=False,
    ),
]
Sets = Annotated[
    str | None,
    typer.Option(
        "--sets",
        help="How --coverage makes its sets: lac (the smallest, default), aps or raps (larger where an "
        "image is hard).",
        autocompletion=words("lac", "aps", "raps"),
        show_default=False,
    ),
]
ByClass = Annotated[
    bool, typer.Option("--by-class", help="With --coverage: the coverage holds in every class.")
]
WrongAtMost = Annotated[
    float | None,
    typer.Option(
        "--wrong-at-most",
        help="Answer only where the model is so sure that at most this share of its answers is wrong, such "
        "as 0.01, with 95 % confidence.",
        show_default=False,
    ),
]
Recall = Annotated[
    list[str] | None,
    typer.Option(
        "--recall",
        help="CLASS=SHARE, such as malignant=0.95: find at least this share of a class, with 95 % "
        "confidence; may be repeated.",
        show_default=False,
    ),
]

Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        help="Of a file of predictions, with --coverage and the like: a file of the same model's predictions "
        "for other images, which calibrate.",
        show_default=False,
    ),
]

LARGE = 10
"""Classes of a set that are named; of a larger one the first, and how many."""


def check_alone(wanted: Wanted, *, prompts: bool = False, tta: bool = False) -> None:
    """Raises ConfigError for guarantees with captions or views, which nothing calibrates."""
    if wanted and prompts:
        raise ConfigError(f"{wanted.options[0]} is calibrated for the run's own classes; leave out --prompts")
    if wanted and tta:
        raise ConfigError(f"{wanted.options[0]} is calibrated for the image alone; leave out --tta")


def set_in_words(classes: Sequence[str]) -> str:
    """The classes of a set, for a cell of a table."""
    more = f", … ({len(classes)})" if len(classes) > LARGE else ""
    return (", ".join(classes[:LARGE]) + more) or "empty"


def guaranteed_columns(wanted: Wanted) -> list[str]:
    """The names of the columns of `guaranteed_cells`."""
    columns = ["set"] if wanted.coverage is not None else []
    columns += ["answers"] if wanted.wrong_at_most is not None else []
    return [*columns, *(["found"] if wanted.recall else [])]


def guaranteed_cells(given: Guaranteed | None, separator: str = "") -> list[str]:
    """What is guaranteed of an image. Lists of classes are divided by the `separator`, or in words."""
    if given is None:
        return []
    cells = []
    if given.classes is not None:
        cells.append(separator.join(given.classes) if separator else set_in_words(given.classes))
    if given.answers is not None:
        cells.append("yes" if given.answers else "no")
    if given.found is not None:
        cells.append((separator or ", ").join(given.found))
    return cells
