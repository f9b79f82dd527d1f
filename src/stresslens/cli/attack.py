"""`stresslens attack` and `stresslens verify`: a run's robustness measured, and anybody's
adversarial images counted again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stresslens.cli.options import Json, Norm, RunArgument, Trust
from stresslens.core.errors import ConfigError, GateNotMet


def attack(
    run: RunArgument,
    norm: Norm = "linf",
    radii: Annotated[
        str,
        typer.Option(
            "--radii", help="In pixel units of [0, 1]: 0.05, or 2/255,8/255, or 0:0.1:0.01 (both ends in)."
        ),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", help="fast, standard, none, or a list of attacks: [fgsm, {pgd: {steps: 40}}]."
        ),
    ] = "fast",
    alone: Annotated[
        list[str] | None,
        typer.Option(
            "--alone",
            help="An attack by itself, with a curve of its own; may be repeated.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str, typer.Option("--images", help="How many, drawn at random from the split; or all.")
    ] = "1000",
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    target: Annotated[
        str | None,
        typer.Option("--target", help="least_likely, random, or a class number.", show_default=False),
    ] = None,
    success: Annotated[
        str, typer.Option("--success", help="untargeted, or target: only reaching it counts.")
    ] = "untargeted",
    surrogate: Annotated[
        Path | None,
        typer.Option(
            "--surrogate", help="Another run, whose gradients the attack transfer uses.", show_default=False
        ),
    ] = None,
    passes: Annotated[
        str,
        typer.Option("--passes", help="That a random model is averaged over; auto: 20 where it is random."),
    ] = "auto",
    bpda: Annotated[
        list[str] | None,
        typer.Option(
            "--bpda",
            help="A submodule that passes no gradient on: taken for the identity backwards.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        list[str] | None,
        typer.Option(
            "--certificate", help="{smoothing: {sigma: 0.25}}; may be repeated.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    audit: Annotated[
        bool, typer.Option("--audit/--no-audit", help="Check the result for the known ways to fool oneself.")
    ] = True,
    trust: Trust = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            help="robust@0.05=0.6: exit code 5 when less than that is robust.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find every image's smallest broken radius, the robust accuracy with its interval, and what
    speaks against believing it.

    The same command goes on where it was stopped, even by kill -9. Adversarial images, figures and
    findings are kept in the run's folder (robustness/…) and shown in its report.
    """
    from stresslens.cli import gates
    from stresslens.cli.terminal import print_json, print_robustness
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.run_folder import RunFolder
    from stresslens.report.page import write_reports_of
    from stresslens.robustness import attack_run
    from stresslens.robustness.attack_run import robustness_config

    if not radii:
        raise ConfigError("give --radii in pixel units, for example --radii 0:0.1:0.01 or --radii 8/255")
    least = gates.parsed_robust(fail_under or [])
    values: dict[str, Any] = {
        "norm": norm,
        "radii": radii,
        "protocol": parse_value(protocol),
        "alone": [parse_value(text) for text in alone or []],
        "images": parse_value(images),
        "split": split,
        "target": parse_value(target) if target is not None else None,
        "success": success,
        "passes": parse_value(passes),
        "bpda": bpda or [],
        "certificates": [parse_value(text) for text in certificate or []],
        "seed": seed,
        "audit": audit,
        "surrogate": str(surrogate) if surrogate is not None else None,
    }
    asked = robustness_config(values)
    gates.check_attacked(least, [0.0, *attack_run.resolved_threat_model(asked, Path.cwd()).radii])
    found = attack_run.attack_run(RunFolder(run), asked, base=Path.cwd(), trust=trust, device=device)
    write_reports_of(run)
    if as_json:
        print_json({"run": str(run), **found.facts})
    else:
        print_robustness(found.result, str(run))
    gates.check_robust(least, str(run), found)


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
            help="The robust accuracy that was published (0.53), to hold against.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Whose images they were made from: test or validation.")
    ] = "test",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Count anybody's adversarial images again: ball, box, labels, dropped images, and the model's
    answers in float32.

    Exit code 5 when something serious is found.
    """
    from stresslens.cli.terminal import print_findings, print_json
    from stresslens.core.ball import parse_radius
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation import finished_run
    from stresslens.robustness import verification

    model, data = finished_run.open_run(RunFolder(run), trust=trust)
    if split not in data.splits:
        raise ConfigError(f"{data.name} has no {split} split in this run; it has {', '.join(data.splits)}")
    found = verification.read_adversarials(adversarials)
    recount = verification.verify_run(
        model,
        data.splits[split],
        found,
        norm=norm,  # type: ignore[arg-type]
        eps=None if eps is None else parse_radius(eps),
        claimed=claimed,
    )
    if as_json:
        print_json(
            {
                "run": str(run),
                "file": str(adversarials),
                "broken": int(recount.broken.sum()),
                "given": recount.given,
                "n": len(recount.broken),
                "robust": recount.robust.as_json(),
                "clean": recount.clean.as_json(),
                "norm": recount.norm,
                "eps": recount.eps,
                "largest": recount.largest,
                "findings": [finding.as_json() for finding in recount.findings],
            }
        )
    else:
        n, robust, held = len(recount.broken), recount.robust, int(recount.broken.sum())
        typer.echo(
            f"{held} of {recount.given} adversarial images hold ({recount.norm}, radius at most {recount.eps:.4g}; they need up to "
            f"{recount.largest:.4g}). Of {n} images {100 * recount.clean.value:.1f} % are right unattacked, and "
            f"{100 * robust.value:.1f} % ({100 * robust.low:.1f} to {100 * robust.high:.1f}) still are."
        )
        print_findings(recount.findings)
    serious = [
        f"{finding.audit}: {finding.evidence}"
        for finding in recount.findings
        if finding.severity == "serious"
    ]
    if serious:
        raise GateNotMet("\n".join(serious))
