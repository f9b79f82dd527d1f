"""Terminal output: tables, verdicts, progress lines, and JSON for programs."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresslens.cli.guaranteed import guaranteed_cells
from stresslens.cli.harmless_stream import terminal_behind
from stresslens.core.text import NOT_FINITE, duration, harmless

if TYPE_CHECKING:
    from stresslens.core.types import Estimate, Finding
    from stresslens.evaluation.classify_files import Prediction
    from stresslens.evaluation.record import DataRecord, RunRecord
    from stresslens.explanation.map_file import ExplanationFile
    from stresslens.explanation.view_file import ViewFile
    from stresslens.training.task import Task


LONG = 20
"""Seconds of work that is announced."""
CHECKS = ("deletion", "insertion", "infidelity", "sensitivity", "randomisation")
CONTROLS = ("shuffled pixels", "another image", "another class", "shuffled weights", "moved")


def overwrite(line: str, end: str = "\r") -> None:
    """Write a line on standard error in place of the last one; it is overwritten in its turn unless
    `end` ends it."""
    terminal = terminal_behind(sys.stderr)
    terminal.write(f"\r\x1b[K{harmless(line)}{end}")
    terminal.flush()


def print_finished(
    position: int, total: int, task: Task, record: RunRecord, accuracy: Estimate | None, *, before: bool
) -> None:
    """Print a line on a finished run with its position in the queue, for example [3/9], and lines on
    its initial weights, on copies in its test split, and on what happened on its way. `before`: it was
    finished when the command began."""
    from stresslens.metrics.leaked_copies import without_copies_in_words

    training, weights = record.training, record.weights
    scored = f"{accuracy.value * 100:6.2f} % of {accuracy.n} test images" if accuracy else "no test split"
    n = training.epochs
    length = "fitted" if n is None else f"{n} epoch{'' if n == 1 else 's'}"
    queue = f"[{position:>{len(str(total))}}/{total}]"
    time_taken = f"{'finished before, ' if before else ''}{length} in {training.seconds:.1f} s"
    print(f"{queue} {task.run} seed {task.seed}: {scored}, {time_taken}", file=sys.stderr)
    if weights:
        print(f"    {'; '.join(filter(None, [weights.said, weights.input]))}", file=sys.stderr)
    elif record.input:
        print(f"    images: {record.input}", file=sys.stderr)
    if record.ensemble and record.ensemble.is_soup:
        from stresslens.evaluation.soups import soup_in_words

        print(f"    {soup_in_words(record.ensemble, record.data.sizes.get('train'))}", file=sys.stderr)
    if record.averaged:
        from stresslens.evaluation.averaged_views import averaged_in_words

        print(f"    {averaged_in_words(record.averaged)}", file=sys.stderr)
    if copies := without_copies_in_words(record.scores.get("test", {}), "test"):
        print(f"    {copies}", file=sys.stderr)
    for note in record.findings:
        print(f"    {note.kind}: {note.message}", file=sys.stderr)


def print_failures(task: Task, record: RunRecord) -> None:
    """Print a line on each stage of a run that failed."""
    for stage, failure in record.failures.items():
        what = "" if record.status == "left out" else f"{stage} failed: "
        print(f"    {task.run} seed {task.seed}: {what}{failure.message}", file=sys.stderr)


def print_scores(scores: dict[str, Estimate], title: str) -> None:
    rows = [
        [NOT_FINITE if name == "no_answer" else name, f"{e.value:.4f}", _interval(e), str(e.n), e.method]
        for name, e in scores.items()
    ]
    print_table(["score", "value", "95 % interval", "n", "method"], rows, title)


def _interval(e: Estimate) -> str:
    return f"at least {e.low:.4f}" if math.isinf(e.high) else f"{e.low:.4f} to {e.high:.4f}"


def print_accuracy(name: str, split: str, e: Estimate) -> None:
    """Print the accuracy of a run that was just carried out."""
    from stresslens.core.format import percent_sign

    print(f"{name}: {percent_sign(e)} of {e.n} {split} images")


def print_table(columns: list[str], rows: list[list[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(harmless(title)), title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(harmless(cell, keep="\n")) for cell in row))
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 160, file=terminal_behind(sys.stdout)).print(table)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output. Characters that a terminal would obey are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    print(re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text))


class Advance:
    """Progress listener for `core.progress`: one line that is overwritten on a terminal, elsewhere
    a line every ten seconds."""

    def __init__(self) -> None:
        self.what, self.began, self.shown = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if what != self.what:
            self.what, self.began, self.shown = what, now, now
        terminal = sys.stderr.isatty()
        ended = done >= total and self.shown > self.began
        if not ended and now - self.shown < (0.2 if terminal else 10):
            return
        self.shown = now
        left = f", {duration((now - self.began) * (total - done) / done)} left" if 0 < done < total else ""
        line = f"{what}: {done:,} of {total:,}{left}"
        if terminal:
            overwrite(line, end="\n" if ended else "\r")
        else:
            print(line, file=sys.stderr)


def print_data_notes(data: DataRecord, told: set[str]) -> None:
    """Print what a loader said of its files, for example those that were left out, once each. `told` is
    what was printed before."""
    for line in data.on_files():
        if line not in told:
            told.add(line)
            print(f"data: {line}", file=sys.stderr)


def print_forecast(what: str, seconds: float, quicker: str) -> None:
    """Print, before long work, about how long it takes, and what is quicker."""
    if seconds >= LONG:
        faster = f"; quicker: {quicker}" if quicker else ""
        print(f"{what} takes about {duration(seconds)}{faster}", file=sys.stderr, flush=True)


def print_serious(evidence: Sequence[str]) -> None:
    """Print serious findings of the data check, which may make the numbers above useless."""
    for each in evidence:
        print(f"data: serious: {each}")


def print_audits(folder: Path) -> None:
    """Print the audit signs on the attacks of a study's runs, each once with the runs that show
    it."""
    from stresslens.core.run_folder import run_folders
    from stresslens.robustness.result_file import ResultFile

    found: dict[tuple[str, str], list[str]] = {}
    for run in run_folders(folder):
        for file in sorted(run.path.glob("robustness/*/result.json")):
            for finding in ResultFile.read(file).findings:
                if finding.status == "sign":
                    name = f"{run.path.parent.name} {run.path.name} ({finding.evidence})"
                    found.setdefault((finding.severity, finding.audit), []).append(name)
    for (severity, audit), runs in sorted(found.items(), reverse=True):
        more = f"; and {len(runs) - 3} more" if len(runs) > 3 else ""
        print(f"attacks: {severity}: {audit}: {'; '.join(runs[:3])}{more}")


def print_findings(found: Sequence[Finding]) -> None:
    """Print the findings: signs first, serious before minor, each with its evidence and
    examples."""
    marks = {"serious": "✗ serious", "minor": "! minor"}
    for finding in sorted(found, key=lambda finding: finding.rank):
        mark = marks.get(finding.severity, "✓" if finding.status == "no sign" else "– not checked")
        print(f"{mark}: {finding.audit}: {finding.evidence}")
        if finding.remedy:
            print(f"    {finding.remedy}")
        for item in finding.items[:5]:
            print(f"    {item}")
        if len(finding.items) > 5:
            print("    … (--json lists more)")


def print_runs(out: Path, as_json: bool, listed: Callable[[str], bool]) -> None:
    """Print the runs below a folder that are to be listed by their path, with status, test accuracy
    and epochs."""
    from stresslens.core.files import UnreadableRun
    from stresslens.core.run_folder import run_folders
    from stresslens.evaluation.record import RunRecord, read_record

    records: dict[str, RunRecord] = {}
    for folder in run_folders(out):
        if not listed(str(folder.path)):
            continue
        try:
            records[str(folder.path)] = read_record(folder)
        except UnreadableRun as error:
            records[str(folder.path)] = RunRecord(status="unreadable", message=str(error))
    if as_json:
        print_json({path: record.as_json() for path, record in records.items()})
        return
    rows = []
    for path, record in records.items():
        accuracy = record.scores.get("test", {}).get("accuracy")
        rows.append(
            [
                path,
                record.status,
                f"{accuracy.value * 100:.2f} %" if accuracy else "",
                "" if record.training.epochs is None else str(record.training.epochs),
            ]
        )
    print_table(["run", "status", "test accuracy", "epochs"], rows, f"runs in {out}")


def plugin_help(folder: str, name: str) -> dict[str, str]:
    """A plug-in's options and the first paragraph of its docstring."""
    import inspect

    from stresslens.config import registry
    from stresslens.core.extras import install_command, missing_modules, needed_extra

    function = registry.plugin(folder, name)
    declared = registry.declared_by(folder, function)
    options = ", ".join(f"{o}={p.default!r}" if p.default is not p.empty else o for o, p in declared.items())
    said = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    needed = needed_extra(function)
    if needed is not None and missing_modules(needed):
        said += f" Not installed: {install_command(needed)}."
    return {"options": options, "help": said}


def meaning_of_predictions(rate: float | None, calibrated_on: str | None, why_not: str) -> str:
    """What the probabilities and the out-of-distribution mark mean, as a sentence."""
    on = f"calibrated on the {calibrated_on} images" if calibrated_on else f"not calibrated: {why_not}"
    flag = (
        f"{100 * rate:.2g} % of images like the validation images are marked out of distribution by mistake"
        if rate
        else "out-of-distribution images are not marked"
    )
    return f"Probabilities are {on}; {flag}."


def print_predictions(rows: Sequence[Prediction], said: str, title: str, more: Sequence[str] = ()) -> None:
    """Print a table of predictions, with `more` columns of guarantees, and below it a sentence on what
    they mean; nothing without a prediction."""
    if not rows:
        return
    marked = any(row.out_of_distribution for row in rows)
    cells = []
    for row in rows:
        (first, probability), *others = row.classes or [(NOT_FINITE, math.nan)]
        next_best = ", ".join(f"{name} {100 * p:.1f} %" for name, p in others)
        cells.append(
            [
                row.file,
                first,
                f"{100 * probability:.1f} %" if row.classes else "",
                next_best,
                *guaranteed_cells(row.guaranteed),
                *(["out of distribution" if row.out_of_distribution else ""] if marked else []),
            ]
        )
    columns = ["image", "class", "probability", "next", *more, *(["marked"] if marked else [])]
    print_table(columns, cells, title)
    print(said)


class CsvPredictions:
    """Prints a line of names, then one CSV line for each image as it arrives; `with_run`, each begins
    with the run."""

    def __init__(self, top: int, *, with_run: bool, more: Sequence[str] = ()) -> None:
        self.top, self.with_run, self.writer = top, with_run, csv.writer(sys.stdout)
        ranks = [part for k in range(1, top + 1) for part in (f"class_{k}", f"probability_{k}")]
        # `unlike` and `p_like` are the names of version 0.1; they stay for one more version.
        names = ["file", *ranks, "out_of_distribution", "ood_p_value", "unlike", "p_like"]
        self.writer.writerow([*(["run"] if with_run else []), *names, *more])

    def write(self, row: Prediction, run: str) -> None:
        ranked = [part for name, p in row.classes for part in (name, f"{p:.6f}")] or [NOT_FINITE]
        blank = [""] * (2 * self.top - len(ranked))
        marks = ["" if value is None else value for value in (row.out_of_distribution, row.ood_p_value)]
        given = guaranteed_cells(row.guaranteed, "|")
        first = [run] if self.with_run else []
        self.writer.writerow([*first, row.file, *ranked, *blank, *marks, *marks, *given])


def print_explanations(maps: Sequence[ExplanationFile], views: Sequence[ViewFile], run: Path) -> None:
    """Print the quality of each explainer's maps, the checks they fail, the results of views, and
    the folders."""
    if maps:
        n = len(maps[0].images)
        what = f"{n} image{'s' if n > 1 else ''} ({maps[0].split})"
        title = f"{run}: maps of {what}, mean and 95 % interval over them"
        print_table(["", *CHECKS], [_checks(result, CHECKS) for result in maps], title)
    if any(result.quality and any(name in result.quality.checks for name in CONTROLS) for result in maps):
        title = "how much more of the losses they explain than maps that cannot be right"
        print_table(["", *CONTROLS], [_checks(result, CONTROLS) for result in maps], title)
    for result in maps:
        for failed in result.quality.failed if result.quality else ():
            print(f"{result.explainer}: not reliable here: {failed}")
        for note in result.notes:
            print(f"{result.explainer}: {note}")
    for view in views:
        for line in view.said:
            print(f"{view.view}: {line}")
    folders = [name for name, results in (("explanations", maps), ("views", views)) if results]
    if folders:
        print("images: " + ", ".join(str(run / name) for name in folders))


def _checks(result: ExplanationFile, names: Sequence[str]) -> list[str]:
    checks = result.quality.checks if result.quality else {}
    return [result.explainer, *(_with_interval(checks[name]) if name in checks else "" for name in names)]


def _with_interval(estimate: Estimate) -> str:
    span = f" ({estimate.low:.2f} to {estimate.high:.2f})" if math.isfinite(estimate.low) else ""
    return f"{estimate.value:.2f}{span}"
