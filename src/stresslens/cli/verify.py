"""`stresslens verify`: recounts given adversarial images against a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import DataNow, Json, RunArgument, Trust
from stresslens.core.errors import DataError, GateNotMet, naming


# long: the options of a command are spelled out, one after the other
def verify(
    run: RunArgument,
    adversarials: Annotated[
        Path, typer.Argument(help="An npz file: adversarials, and images and labels or index; eps, norm.")
    ],
    norm: Annotated[
        str | None, typer.Option("--norm", help="linf, l2 or l1; default: the file's.", show_default=False)
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option("--eps", help="The radius, for example 8/255; default: the file's.", show_default=False),
    ] = None,
    claimed: Annotated[
        float | None,
        typer.Option(
            "--claimed",
            help="The published robust accuracy to compare with, for example 0.53, or 53 for percent.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            autocompletion=words("test", "validation"),
            help="The split that the images come from: test or validation.",
        ),
    ] = "test",
    data: DataNow = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Recount given adversarial images.

    It looks the images up in the split, checks labels, ball, box, missing, repeated and untouched
    images, and the model's answers in float32. Exit code 3 when the file is not of the split's
    images and labels, 5 when another finding is serious, such as a claimed figure that does not
    hold.
    """
    from stresslens.cli.terminal import print_findings, print_json
    from stresslens.core.ball import parse_radius
    from stresslens.core.run_folder import RunFolder
    from stresslens.core.splits import split_named
    from stresslens.evaluation import finished_run
    from stresslens.robustness import verification

    model, known = finished_run.open_run(RunFolder(run), trust=trust, data=data)
    images = split_named(known, split)
    found = verification.read_adversarials(adversarials)
    radius = None if eps is None else parse_radius(eps)
    with naming(str(adversarials)):
        recount = verification.verify_run(
            model,
            images,
            found,
            norm=norm,  # type: ignore[arg-type]
            eps=radius,
            claimed=claimed,
            others={name: other for name, other in known.splits.items() if name != split},
            name=split,
        )
    if as_json:
        print_json(
            {
                "run": str(run),
                "file": str(adversarials),
                "broken": int(recount.broken.sum()),
                "given": recount.given,
                "n": recount.robust.n,
                "untouched": recount.untouched,
                "robust": recount.robust.as_json(),
                "clean": recount.clean.as_json(),
                "norm": recount.norm,
                "eps": recount.eps,
                "largest": recount.largest,
                "findings": [finding.as_json() for finding in recount.findings],
            }
        )
    else:
        robust, held = recount.robust, int(recount.broken.sum())
        typer.echo(
            f"{held} of {recount.given} adversarial images hold ({recount.norm}, radius at most "
            f"{recount.eps:.4g}; they need up to {recount.largest:.4g}). Of {robust.n} images "
            f"{100 * recount.clean.value:.1f} % are right unattacked, and {100 * robust.value:.1f} % "
            f"({100 * robust.low:.1f} to {100 * robust.high:.1f}) still are."
        )
        print_findings(recount.findings)
    serious = [
        f"{finding.audit}: {finding.evidence}"
        for finding in recount.findings
        if finding.severity == "serious"
    ]
    if unacceptable := [f"{finding.audit}: {finding.evidence}" for finding in recount.unacceptable]:
        why = "the file is not what it should be, so its figure does not count"
        raise DataError("\n".join([f"{adversarials}: {why}", *unacceptable]))
    if serious:
        raise GateNotMet("\n".join(serious))
