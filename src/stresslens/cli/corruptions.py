"""`stresslens corruptions`: a run's errors on a published set of corrupted images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.options import Json, RunArgument, Trust


# long: options are spelled out, and a table is printed
def corruptions(
    run: RunArgument,
    path: Annotated[Path, typer.Argument(help="The folder of CIFAR-10-C (npy files) or ImageNet-C.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="Divide by the errors of this run, or of alexnet on ImageNet-C.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, help="So many images of each cell, drawn at random; default: all."),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure a run on a published set of corrupted images.

    It prints the error under each corruption at the severities 1 to 5, and the mean corruption error
    (Hendrycks and Dietterich 2019) with its interval: relative to a baseline if one is given, or else
    the mean error. The images are corrupted test images: the read is counted, and nothing may be chosen
    by them. The figures are also written to corruption-sets/ in the run.
    """
    from stresslens.cli.terminal import print_json, print_table
    from stresslens.core.errors import ConfigError
    from stresslens.core.progress import advance
    from stresslens.core.run_folder import RunFolder
    from stresslens.robustness.corruption_set_score import ALEXNET_NAME, score_corruption_set

    if baseline is not None and baseline != ALEXNET_NAME and not (Path(baseline) / "record.json").is_file():
        raise ConfigError(
            f"--baseline {baseline}: expected a run's folder (…/seed-0), or {ALEXNET_NAME} for ImageNet-C"
        )
    score = score_corruption_set(
        RunFolder(run),
        path.expanduser(),
        baseline=baseline,
        images=images,
        trust=trust,
        on_progress=lambda done, total: advance(f"classifying {path.name}", done, total),
    )
    if as_json:
        print_json({"run": str(run), **score.as_json()})
        return
    rows = []
    for name, cells in score.errors.items():
        ce = score.corruption_errors.get(name)
        shown = "" if ce is None else f"{100 * ce:.1f}"
        rows.append([name, *(f"{100 * cell.value:.1f}" for cell in cells), shown])
    severities = [f"severity {k}" for k in range(1, 6)]
    print_table(["error, %", *severities, "CE, %"], rows, f"{score.name}, n = {score.n:,} in each cell")
    mean = score.mean
    what = f"relative to {score.baseline}" if score.baseline else "the mean error, no baseline"
    typer.echo(
        f"mean corruption error ({what}): {100 * mean.value:.1f} % "
        f"({100 * mean.low:.1f} to {100 * mean.high:.1f}), over {len(score.corruption_errors)} corruptions, "
        f"five severities and {score.n:,} images"
    )
    for note in score.notes:
        typer.echo(f"note: {note}")
