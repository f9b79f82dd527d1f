"""`stresslens serve`: answers requests with trained models, over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import runs
from stresslens.cli.options import Trust
from stresslens.cli.run_arguments import checked_run_or_export
from stresslens.core.errors import ConfigError

TOKEN = "STRESSLENS_TOKEN"


# long: the options of a command are spelled out, one after the other
def serve(
    served: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN...]",
            autocompletion=runs,
            help="A run's folder (…/seed-0) or several, or what `stresslens export` wrote.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            help="A folder of studies (runs/): a page shows them as they are trained.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; 0.0.0.0 answers other machines too.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8000,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Processes that compute; each opens all runs.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            help="Threads of a worker; default: torch's, or one where more gain little.",
            show_default=False,
        ),
    ] = None,
    max_megabytes: Annotated[
        int, typer.Option("--max-megabytes", min=1, help="The longest request (413).")
    ] = 20,
    max_megapixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, help="The largest image; larger ones are unreadable.")
    ] = 50,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="The most images of a request (413).")
    ] = 64,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", min=1, help="The most images that may wait (503).")
    ] = 512,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, help="Seconds until a request is given up (504).")
    ] = 30,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="The page at /, on which people try pictures.")
    ] = True,
    trust: Trust = False,
) -> None:
    """Serve runs over HTTP, or watch trainings.

    Open the address in a browser: on its page you draw, drop or photograph a picture, see what each run
    makes of it and why, and attack it.

    POST /predict takes the bytes of an image, a form with files, or JSON with base64, and answers with
    classes, calibrated probabilities, a set of classes, and whether the image is unlike the training
    images. /openapi.json describes it, /health says what is served, and /metrics counts for Prometheus.
    Requests that arrive together are computed together. With the environment variable STRESSLENS_TOKEN
    set, each request needs it (Authorization: Bearer TOKEN). SIGTERM and Ctrl-C let open requests end.

    With --watch, /watch lists the studies of a folder, with the curves of their runs as they grow, the time
    that is left, and links to their reports.
    """
    from stresslens.core.extras import extra
    from stresslens.serve.limits import Limits

    with extra("serve", "stresslens serve"):
        from stresslens.serve.server import Address, serve_runs

    if not served and watch is None:
        raise ConfigError("give a run to serve, or a folder of studies to --watch")
    if watch is not None and not watch.is_dir():
        raise ConfigError(f"--watch {watch}: there is no such folder")
    what = ", ".join(map(str, [*(served or ()), *([] if watch is None else [f"studies in {watch}"])]))
    token = os.environ.get(TOKEN)
    if token is not None and len(token) < 8:
        raise ConfigError(f"{TOKEN} has {len(token)} characters; give at least 8, or unset it")
    address = Address(host, port)
    if not address.is_local and token is None:
        typer.echo(
            f"everybody who reaches {host} can ask this server; {TOKEN} sets a token that requests need",
            err=True,
        )
    serve_runs(
        [checked_run_or_export(path) for path in served or ()],
        address,
        limits=Limits(max_megabytes, max_megapixels, max_images, timeout, max_waiting),
        workers=workers,
        threads=threads,
        trust=trust,
        token=token,
        watch=watch,
        page=page,
        ready=lambda url: typer.echo(f"{what}: {url} (Ctrl-C stops)"),
    )
