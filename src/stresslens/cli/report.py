"""`stresslens report`: writes the report pages again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import runs_and_studies


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A study's folder (runs/NAME), or a run's (…/seed-0).", autocompletion=runs_and_studies
        ),
    ],
) -> None:
    """Write the report pages from files.

    It writes report.html again, for a study and each of its runs or for one run. It needs no model
    and no GPU.
    """
    from stresslens.report.page import write_report

    typer.echo(str(write_report(folder)))
