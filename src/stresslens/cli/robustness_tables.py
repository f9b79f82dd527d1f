"""Terminal output of attacks: robust accuracy, individual attacks, certificates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stresslens.cli.terminal import print_findings, print_table
from stresslens.core.text import NOT_FINITE, counted, duration

if TYPE_CHECKING:
    from stresslens.core.types import Estimate
    from stresslens.robustness.certificate_file import CertificateFile
    from stresslens.robustness.result_file import CurveLevel, IndividualAttackRow, ResultFile


def print_robustness(result: ResultFile, title: str) -> None:
    """Print robust accuracy at each radius and what broke the images, each attack by itself, and
    the audits."""
    from stresslens.robustness.robust_curves import query_tables

    rows = [] if result.aimed or _has_zero(result.curve) else [["0", *_percent(result.clean), "no attack"]]
    for level in result.curve:
        robust = result.targeted_success(level.robust) if result.aimed else level.robust
        by = ", ".join(f"{name} {count}" for name, count in level.newly_broken_by.items())
        by += f"; {NOT_FINITE} in all: {level.no_answer}" if level.no_answer else ""
        rows.append([f"{level.eps:.4g}", *_percent(robust), by])
    measure = "targeted success rate" if result.aimed else result.measure
    n = f"n = {round(result.clean.value * result.n) if result.aimed else result.n} ({result.split})"
    if result.target is not None:
        n += f", target {result.toward}"
    if result.left_out:
        n += f" ({result.left_out} images of that class are left out)"
    print_table(
        ["radius", measure, "95 % interval (Wilson)", "first broken at this radius, by"],
        rows,
        f"{title}: {measure}, {result.norm}, {result.protocol} protocol, {n}",
    )
    if result.aimed:
        print(
            "Only the target counted as success: the table is of the images that are correct without attack, "
            "and says how many an attack drives to the target. It is no robust accuracy."
        )
    for attack in result.individual_attacks:
        cells = []
        if not attack.left_out and not _has_zero(attack.rows):
            cells.append(["0", _percent(result.clean)[0], _percent(result.clean_top5)[0], "no attack"])
        for row in attack.rows:
            top5 = _percent(row.top5)[0]
            odd = [
                f"{row.outside} outside the ball" if row.outside else "",
                f"{row.silent} found but not returned" if row.silent else "",
            ]
            cells.append([f"{row.eps:.4g}", _percent(row.accuracy)[0], top5, ", ".join(filter(None, odd))])
        print_table(
            ["radius", "accuracy", "top-5 accuracy", ""],
            cells,
            f"{attack.label} by itself, on the images it returned"
            + (f", without the {attack.left_out} images of its target class" if attack.left_out else ""),
        )
    for table in query_tables(result):
        print_table(list(table.columns), [list(row) for row in table.rows], table.title)
        print(table.note)
    if result.outside:
        print(result.outside)
    cost = result.cost
    print(
        f"{duration(cost.seconds or 0.0)} for the attacks ({cost.gradients or 0:,} gradients, "
        f"{cost.forwards or 0:,} forward passes), {duration(cost.audit_seconds or 0.0)} for the audits"
    )
    print_findings([finding for finding in result.findings if finding.status == "sign"])
    for status, mark in (("no sign", "✓ no sign"), ("not checked", "– not checked")):
        if names := [finding.audit for finding in result.findings if finding.status == status]:
            print(f"{mark}, {counted(len(names), 'audit')}: {', '.join(names)}")
    if result.findings:
        print("how each audit looked, and why not: the run's report, or --json")


def _has_zero(rows: Sequence[CurveLevel | IndividualAttackRow]) -> bool:
    return any(row.eps == 0 for row in rows)


def _percent(estimate: Estimate | None) -> list[str]:
    """The figure and its interval as two cells."""
    if estimate is None:
        return ["", ""]
    return [
        f"{100 * estimate.value:.1f} %",
        f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}",
    ]


def print_certificate(result: CertificateFile) -> None:
    """Print the certified accuracy at each radius of the curve, and what could not be certified."""
    rows = [[f"{level.radius:.4g}", *_percent(level.certified)] for level in result.curve]
    title = f"{result.certificate} certificate, {result.norm}, n = {result.n} ({result.split})"
    print_table(["radius", "certified accuracy", "95 % interval (Wilson)"], rows, title)
    limit = result.largest_radius
    beyond = "" if limit is None else f"; no radius beyond {limit:.4g} can be certified with these options"
    print(f"it abstains for {result.abstained} of {result.n} images{beyond}")
