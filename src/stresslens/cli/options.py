"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


RunArgument = Annotated[Path, typer.Argument(help="A run's folder (…/seed-0).")]


Trust = Annotated[bool, typer.Option("--trust", help="Also execute plug-ins that are not built in.")]


Norm = Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")]


DataSet = Annotated[
    str,
    typer.Argument(
        help="A dataset: digits, mnist, …, {mnist: {validation: 5000}}, or the path of your own images."
    ),
]


Json = Annotated[bool, typer.Option("--json", help="For machines: one JSON document on standard output.")]
