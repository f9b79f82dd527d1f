"""What a person sees in the terminal: tables, progress, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stresslens.building import Task
    from stresslens.core.types import Estimate
    from stresslens.training import Position, Show


def silent(position: Position, epochs: int, done: float) -> None:
    pass


def progress(task: Task, verbose: bool) -> Show:
    """One line that is written over on a terminal; elsewhere a line every ten seconds (every second with -v)."""
    began = time.perf_counter()
    first: list[float] = []
    last = [began]
    terminal = sys.stderr.isatty()

    def show(position: Position, epochs: int, done: float) -> None:
        now = time.perf_counter()
        first.append(done) if not first else None
        if not terminal and now - last[0] < (1 if verbose else 10):
            return
        last[0] = now
        rate = (done - first[0]) / (now - began)
        left = f"{duration((1 - done) / rate)} left" if rate > 0 else "…"
        line = f"{task.run} seed {task.seed}: epoch {position.epoch}/{epochs}, loss {position.last_loss:.4f}, {left}"
        if terminal:
            filled = round(24 * done)
            sys.stderr.write(f"\r\x1b[K[{'█' * filled}{'·' * (24 - filled)}] {line}\r")
            sys.stderr.flush()
        else:
            print(line, file=sys.stderr)

    return show


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def print_scores(scores: dict[str, Estimate], title: str) -> None:
    rows = [[name, f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}", str(e.n), e.method] for name, e in scores.items()]
    print_table(["score", "value", "95 % interval", "n", "method"], rows, title)


def print_verdicts(compared: Mapping[str, Any], *, plans: bool = False) -> None:
    """The headline, and each contrast's verdict; below those not distinguishable (with `plans`, below all) what it would take."""
    contrasts = {contrast["verdict"]: contrast for contrast in compared["contrasts"]}
    for verdict in compared["verdicts"]:
        print(verdict)
        contrast = contrasts.get(verdict)
        if contrast and (plans or not contrast["real"]):
            print(f"    {contrast['plan']}")


def print_comparison(compared: Mapping[str, Any], *, plans: bool) -> None:
    """Accuracies as a table, then the verdicts on them, and on what each costs."""
    rows = [
        [name, f"{e['value'] * 100:.2f} %", f"{e['low'] * 100:.2f} to {e['high'] * 100:.2f}", str(e["n"]), e["method"]]
        for name, e in compared["recipes"].items()
    ]
    print_table([compared["kind"], "accuracy", "95 % interval", "images", "method"], rows, f"{compared['split']} accuracy")
    print_verdicts(compared, plans=plans)
    for cost in compared["costs"]:
        print(cost["verdict"])


def print_table(columns: list[str], rows: list[list[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_json(value: Any) -> None:
    """One document on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
