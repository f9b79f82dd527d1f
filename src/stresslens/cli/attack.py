"""`stresslens attack`: measures a run's robustness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stresslens.cli.completion import plugins_of, runs
from stresslens.cli.options import DataNow, HeldOutSplit, Json, Norm, RunArgument, Trust
from stresslens.core.errors import ConfigError


# long: the options of a command are spelled out, one after the other
def attack(
    run: RunArgument,
    norm: Norm = "linf",
    radii: Annotated[
        str,
        typer.Option(
            "--radii",
            help="In pixel units of [0, 1]: 0.05, or 2/255,8/255, or 0:0.1:0.01 (both ends included).",
        ),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            autocompletion=plugins_of("attacks", more=("fast", "standard", "none")),
            help="fast, standard, none, or a list of attacks: [fgsm, {pgd: {steps: 40}}].",
        ),
    ] = "fast",
    individual_attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--individual-attack",
            autocompletion=plugins_of("attacks"),
            help="An attack that also gets its own curve; may be repeated.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str, typer.Option("--images", help="The number of images, drawn at random from the split; or all.")
    ] = "1000",
    split: HeldOutSplit = "test",
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="least_likely, random, or a class by its name or number.", show_default=False
        ),
    ] = None,
    success: Annotated[
        str, typer.Option("--success", help="untargeted, or target: only the target class counts.")
    ] = "untargeted",
    surrogate: Annotated[
        Path | None,
        typer.Option(
            "--surrogate",
            autocompletion=runs,
            help="Another run; the attack `transfer` uses its gradients.",
            show_default=False,
        ),
    ] = None,
    eot_samples: Annotated[
        str,
        typer.Option(
            "--eot-samples", help="Passes that a random model is averaged over; auto: 20 where it is random."
        ),
    ] = "auto",
    bpda: Annotated[
        list[str] | None,
        typer.Option(
            "--bpda",
            help="A submodule without a useful gradient: the backward pass treats it as the identity (BPDA).",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        list[str] | None,
        typer.Option(
            "--certificate",
            autocompletion=plugins_of("certificates"),
            help="{smoothing: {sigma: 0.25}}; may be repeated.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    audit: Annotated[
        bool, typer.Option("--audit/--no-audit", help="Check the result for known signs of a failed attack.")
    ] = True,
    data: DataNow = None,
    trust: Trust = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            help="robust@0.05=0.6: exit code 5 when the robust accuracy is lower.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how robust a run is to attacks.

    For every image it finds the smallest radius that breaks it, and gives the robust accuracy with
    its interval and the audit findings. After a stop, even by kill -9, the same command resumes.
    Adversarial images, figures and findings are kept in the run's folder (robustness/…) and shown in
    its report.
    """
    from stresslens.cli import gates
    from stresslens.cli.robustness_tables import print_certificate, print_robustness
    from stresslens.cli.terminal import print_json
    from stresslens.config.threat_model import resolved_threat_model
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
        "individual_attacks": [parse_value(text) for text in individual_attacks or []],
        "images": parse_value(images),
        "split": split,
        "target": parse_value(target) if target is not None else None,
        "success": success,
        "eot_samples": parse_value(eot_samples),
        "bpda": bpda or [],
        "certificates": [parse_value(text) for text in certificate or []],
        "seed": seed,
        "audit": audit,
        "surrogate": str(surrogate) if surrogate is not None else None,
    }
    config = robustness_config(values)
    threat = resolved_threat_model(config, Path.cwd())
    gates.check_attacked(least, [0.0, *threat.radii], targeted=threat.targeted_success)
    where: dict[str, Any] = {"base": Path.cwd(), "trust": trust, "device": device, "data": data}
    found = attack_run.attack_run(RunFolder(run), config, **where)
    if as_json:
        certified = [each.as_json() for each in found.certificates]
        print_json({"run": str(run), **found.facts, "certificates": certified})
    else:
        print_robustness(found.result, str(run))
        for each in found.certificates:
            print_certificate(each)
    write_reports_of(run)
    gates.check_robust(least, str(run), found)
