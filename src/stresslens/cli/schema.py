"""`stresslens schema`: writes the JSON schema of study files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; default: print it.", show_default=False),
    ] = None,
) -> None:
    """Write the JSON schema of study files.

    An editor completes keys and plug-ins with it, shows their help, and marks mistakes. It holds the
    plug-ins that are installed. A study names it in a comment, for editors with a YAML language
    server:

    # yaml-language-server: $schema=schema.json
    """
    from stresslens.config.json_schema import schema_text
    from stresslens.core.files import write_bytes

    text = schema_text()
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        typer.echo(f"wrote {out}", err=True)
