"""`stresslens export`: writes a run's model as a file for other programs, checked against the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import Json, RunArgument, Trust
from stresslens.cli.terminal import print_json


def export(
    run: RunArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            autocompletion=words("onnx", "torch", "safetensors", "docker", "page"),
            help="onnx, torch (a .pt2 of torch.export), safetensors (a folder), docker (such a folder with a "
            "Dockerfile that serves it), or page (an HTML page that computes in a browser).",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The file or folder; default: in the run's folder, exports/.", show_default=False
        ),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Export a trained model to a file.

    The file gives the same answers as the run, in `stresslens predict` and in programs without
    stresslens. Resizing and normalising are part of it. A page holds a small net; people draw on it
    and try pictures in a browser, without a server. The file is opened again and compared with the
    run on images of its data; if the logits differ by more than 1e-4, no file is left.
    """
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.export import BATCHES, export_run

    found = export_run(RunFolder(run), to, out=out, trust=trust)
    if as_json:
        print_json({"run": str(run), **found.as_json()})
        return
    opset = f", opset {found.opset}" if found.opset else ""
    typer.echo(
        f"{found.file}: {found.size / 1e6:.2f} MB{opset}; its logits differ from the run's by at most "
        f"{found.difference:.1g} over {found.images} {found.shown} images in batches of "
        f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    )
