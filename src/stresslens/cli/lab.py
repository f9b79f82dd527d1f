"""`stresslens lab check`: a student's parts against their references, and claimed figures against
runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresslens.cli.options import Json
from stresslens.cli.terminal import print_findings, print_json
from stresslens.core.errors import ConfigError, GateNotMet

if TYPE_CHECKING:
    from stresslens.core.types import Finding
    from stresslens.labs.part import Lab

app = typer.Typer(help="Check the work on a lab (docs/labs.md).", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def lab() -> None:
    """Check the work on a lab (docs/labs.md)."""


@app.command("check")
def check(
    notebooks: Annotated[
        list[Path], typer.Argument(help="Notebooks, files (.py, .md, .csv) or folders of them.")
    ],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Execute the parts. They are Python code, which can do whatever you can do: trust "
            "your own, or those of somebody you know.",
        ),
    ] = False,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=1, help="Seconds for each part; then it is stopped.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Check parts and claimed figures.

    A part is a cell, or a file, that begins with a line `# part: KIND`, where KIND is gradient, loss,
    optimizer, convolution, model, attack or explainer. It is compared with its reference. A claim is
    a row of a table with the columns run and claimed, or better and than. Exit code 5 when a part
    differs or a claim does not hold, 2 when something cannot be checked.
    """
    from stresslens.labs.part import lab_of, listed

    labs = [lab_of(path) for path in notebooks]
    parts = [part for each in labs for part in each.parts]
    problems = [problem for each in labs for problem in each.problems]
    results: list[dict[str, Any]] = []
    printed = ""
    for searched in (each.searched for each in labs if each.searched and not as_json):
        typer.echo(searched)
    for title, facts, find in _checks(labs, time_limit, trust):
        try:
            found = find()
        except ConfigError as error:
            problems.append(str(error))
            continue
        results.append({**facts, "findings": found})
        if not as_json:
            if title != printed:
                typer.echo(title)
            print_findings(found)
            printed = title
    if as_json:
        print_json([{**each, "findings": [f.as_json() for f in each["findings"]]} for each in results])
    wrong = _wrong(results)
    if parts and not trust:
        problems.append(
            f"not executed:\n{listed(parts)}\nA part is code. If you trust it, give --trust to check it; it "
            "is executed in a process of its own, which can still do all that you can do"
        )
    if problems:
        raise ConfigError("\n".join([*wrong, *problems]))
    if wrong:
        raise GateNotMet("\n".join(wrong))


def _wrong(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where something is wrong, and which checks say so."""
    return [
        f"{each['where']}: {each['kind']}: {', '.join(names)}"
        for each in results
        if (names := [finding.audit for finding in each["findings"] if finding.severity == "serious"])
    ]


def _checks(
    labs: Sequence[Lab], seconds: float, trust: bool
) -> Iterator[tuple[str, dict[str, str], Callable[[], list[Finding]]]]:
    """What is to be checked: a title, what it is, and the check. Parts only with `trust`."""
    from stresslens.labs.claimed_figures import claim_findings
    from stresslens.labs.part_process import part_findings

    for table in (table for each in labs for table in each.tables):
        facts = {"where": table.where, "kind": "claim"}
        for line, cells in table.rows:
            find = partial(claim_findings, table, line, cells)
            yield f"{table.where}: claimed figures", facts, find
    for part in (part for each in labs for part in each.parts if trust):
        facts = {"where": part.where, "kind": part.kind, "function": part.function}
        yield part.title, facts, partial(part_findings, part, seconds)
