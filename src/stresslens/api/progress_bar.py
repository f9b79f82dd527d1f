"""Progress of long work in Python: a bar with the time left, in a notebook and on a terminal."""

from __future__ import annotations

import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from stresslens.api.words import in_python
from stresslens.core import progress as reports
from stresslens.core.errors import ConfigError, Notice, first_line
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import duration, harmless
from stresslens.training.epoch_log import NewEpochs
from stresslens.training.state import TrainingState

Callback: TypeAlias = Callable[[str, float, float], object]
"""Called a few times a second with what is being done, how much of it is done, and how much there is.
Of a training these are epochs, with the share of the present one."""
Progress: TypeAlias = bool | Callback
"""Whether progress is shown, or what is called with it."""

DELAY = 0.5
"""Seconds of work before a bar is shown."""
LONG = 20
"""Seconds of work that is announced."""
LINES = 20
"""Most lines that are printed on the epochs of a training, or on the runs of a study."""
FORMAT = "{desc} |{bar}| {percentage:3.0f} %, {elapsed} done, {remaining} left{postfix}"


class Display:
    """Shows nothing; the base of what shows something."""

    def __call__(self, what: str, done: float, total: float, facts: str = "") -> None:
        """Reports that `done` of `total` is done; `facts` are shown beside it."""

    def print(self, line: str) -> None:
        """Shows a line that stays."""

    def close(self) -> None:
        """Takes the bar away."""


class Called(Display):
    """Calls the caller's own function. After an error it is not called again, and the work continues."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def __call__(self, what: str, done: float, total: float, facts: str = "") -> None:
        if self.callback is None:
            return
        try:
            self.callback(what, done, total)
        except Exception as error:
            self.callback = None
            why = f"{type(error).__name__}: {first_line(error)}"
            warnings.warn(f"progress: your function is not called again ({why})", Notice, stacklevel=2)


class Bar(Display):
    """One bar at a time: on standard error, or as a widget of the notebook. Work of less than `DELAY`
    seconds has none."""

    def __init__(self) -> None:
        self.what, self.began, self.first = "", 0.0, 0.0
        self.bar: Any = None

    def __call__(self, what: str, done: float, total: float, facts: str = "") -> None:
        now = time.perf_counter()
        if what != self.what:
            self.close()
            self.what, self.began, self.first = what, now, done
        if self.bar is None and now - self.began >= DELAY and done < total:
            size = shutil.get_terminal_size()  # tqdm shows nothing where a terminal does not say its own
            of_terminal = {} if in_notebook() else {"ncols": size.columns, "nrows": size.lines}
            self.bar = _tqdm()(
                desc=harmless(what),
                total=total,
                initial=self.first,
                bar_format=FORMAT,
                smoothing=0,
                leave=False,
                miniters=0,
                mininterval=0,
                **of_terminal,
            )
            self.bar.start_t -= now - self.began
        if self.bar is not None:
            self.bar.n = min(done, total)
            self.bar.set_postfix_str(facts, refresh=False)
            self.bar.refresh()

    def print(self, line: str) -> None:
        if in_notebook():
            print(harmless(line))  # a notebook shows standard error as if it were a failure
        else:
            _tqdm().write(harmless(line), file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.what = None, ""


@contextmanager
def shown(progress: Progress) -> Iterator[Display]:
    """A display that also gets the reports of `core.progress` inside the context. With True it is a bar in
    a notebook or on a terminal, and nothing elsewhere; a function is called. Raises ConfigError for
    anything else."""
    if not isinstance(progress, bool) and not callable(progress):
        raise ConfigError(
            f"progress is {progress!r}; expected True, False, or a function of what is being done, how much "
            "of it is done, and how much there is"
        )
    display: Display
    if callable(progress):
        display = Called(progress)
    else:
        display = Bar() if progress and (in_notebook() or sys.stderr.isatty()) else Display()

    def foretold(what: str, seconds: float, quicker: str) -> None:
        if seconds >= LONG:
            faster = f"; quicker: {in_python(quicker)}" if quicker else ""
            display.print(f"{what} takes about {duration(seconds)}{faster}")

    try:
        with reports.listening(display, foretold):
            yield display
    finally:
        display.close()


class Epochs:
    """Shows a training: a bar, and with `lines` a line for each epoch, or for some of them."""

    def __init__(self, display: Display, what: str, folder: Path, epochs: int, *, lines: bool) -> None:
        self.display, self.what, self.total, self.lines = display, what, epochs, lines
        self.logged = NewEpochs(RunFolder(folder).metrics)
        self.epoch, self.trained, self.done = -1, False, 0.0

    def show(self, position: TrainingState, epochs: int, done: float) -> None:
        if position.epoch != self.epoch:
            self.epoch = position.epoch
            self.print_new()
        self.done = done
        self.display(self.what, done * epochs, epochs, f"loss {position.last_loss:.4f}")

    def print_new(self) -> None:
        """Prints the epochs that were logged since."""
        every = math.ceil(max(self.total, 1) / LINES)
        for line in self.logged.read():
            self.trained = True
            if self.lines and (line.epoch % every == 0 or line.epoch == self.total):
                self.display.print(f"epoch {line.epoch}/{self.total}: {line.in_words}")

    def end(self) -> None:
        """Shows the end of a training that was shown."""
        self.print_new()
        if self.trained and self.done < 1:
            self.display(self.what, self.total, self.total)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@cache
def _tqdm() -> Any:
    """tqdm as it suits here: a widget in a notebook that has ipywidgets, else text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    class Plain(tqdm):  # type: ignore[misc]
        monitor_interval = 0

    return Plain
