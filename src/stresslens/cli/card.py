"""`stresslens card`: writes the model card of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import runs
from stresslens.cli.run_arguments import checked_run


def card(
    run: Annotated[Path, typer.Argument(help="The folder of a run (…/seed-0).", autocompletion=runs)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; default: print it.", show_default=False),
    ] = None,
) -> None:
    """Write the model card of a run as Markdown.

    It begins with the front matter of the Hugging Face hub, and tells the data, scores with intervals,
    classes and groups of images, calibration, robustness, audits, training and limits, from the run's
    files alone.
    """
    from stresslens.core.files import write_bytes
    from stresslens.core.run_folder import RunFolder
    from stresslens.report.model_card import render_model_card

    text = render_model_card(RunFolder(checked_run(run)))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        typer.echo(str(out))
