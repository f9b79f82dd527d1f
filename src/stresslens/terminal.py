"""What a person sees in the terminal: tables, progress, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from stresslens.core.durations import duration

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


def print_scores(scores: dict[str, Estimate], title: str) -> None:
    rows = [[name, f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}", str(e.n), e.method] for name, e in scores.items()]
    print_table(["score", "value", "95 % interval", "n", "method"], rows, title)


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
