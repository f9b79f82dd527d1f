"""`stresslens audit`: checks a published table of robust accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from stresslens.cli.options import Json
from stresslens.cli.terminal import print_findings, print_json
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.core.spelling import closest
from stresslens.core.text import counted


def audit(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV or Markdown with columns such as model, attack, eps, accuracy, n, norm, "
            "steps, step size, trained on; or a row for each model and columns like clean, FGSM eps=0.05."
        ),
    ],
    eps: Annotated[
        str | None,
        typer.Option("--eps", help="The radius of figures that have none in the table, for example 8/255."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, help="The number of images behind each figure, where the table does not say it."
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option("--norm", help="linf, l2 or l1, where the table does not say it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a table of robust accuracies.

    It looks for the known signs of a failed attack, in any published table. Exit code 5 when a sign
    is serious.
    """
    from stresslens.config.registry import all_names
    from stresslens.core.ball import Norm, parse_radius
    from stresslens.robustness.accuracy_tables import read_table
    from stresslens.robustness.audit import audit as look
    from stresslens.robustness.audit import needs_of

    if norm is not None and norm not in get_args(Norm):
        raise ConfigError(f"--norm {norm}: {closest(norm, list(get_args(Norm)))}")
    read = read_table(
        table, eps=None if eps is None else parse_radius(eps), n=n, norm=cast(Norm | None, norm)
    )
    found = look(table=read.rows, only=[name for name in all_names("audits") if needs_of(name) == ("table",)])
    if as_json:
        print_json(
            {
                "table": str(table),
                "figures": len(read.rows),
                "notes": read.notes,
                "findings": [f.as_json() for f in found],
            }
        )
    else:
        typer.echo(f"{counted(len(read.rows), 'figure')}; {'; '.join(read.notes)}")
        print_findings(found)
    grave = [finding.audit for finding in found if finding.severity == "serious"]
    if grave:
        raise GateNotMet(f"serious: {', '.join(grave)}")
