"""The command line: one file per command. torch is imported only inside a command, so that --help
is fast."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO

import typer

from stresslens.cli.ablate import ablate
from stresslens.cli.attack import attack
from stresslens.cli.audit import audit
from stresslens.cli.card import card
from stresslens.cli.compare import compare
from stresslens.cli.corruptions import corruptions
from stresslens.cli.data import app as data_app
from stresslens.cli.data_compare import compare as compare_data
from stresslens.cli.data_labels import labels
from stresslens.cli.doctor import doctor
from stresslens.cli.ensemble import ensemble
from stresslens.cli.evaluate import evaluate
from stresslens.cli.explain import explain
from stresslens.cli.export import export
from stresslens.cli.harmless_stream import harmless_output
from stresslens.cli.help import Commands, help_, orientation
from stresslens.cli.init import init
from stresslens.cli.lab import app as lab_app
from stresslens.cli.layers import layers
from stresslens.cli.list import list_plugins
from stresslens.cli.options import WithOldOptions
from stresslens.cli.predict import predict
from stresslens.cli.report import report
from stresslens.cli.run import run
from stresslens.cli.schema import schema
from stresslens.cli.serve import serve
from stresslens.cli.terminal import Advance, print_forecast
from stresslens.cli.train import train
from stresslens.cli.verify import verify
from stresslens.core.disk_errors import refusal
from stresslens.core.errors import Stopped, StresslensError, first_line
from stresslens.core.notices import notices_are_sentences
from stresslens.core.progress import listening
from stresslens.core.text import readable

app = typer.Typer(
    name="stresslens",
    help="Trains image classifiers, attacks them, hardens them, looks inside them, and says which "
    "differences are real.\n\n"
    "Exit codes: 0 ok, 1 unexpected, 2 usage or configuration, 3 data, 4 training diverged, "
    "5 a quality gate not met, 130/143 stopped by a signal after saving, "
    "141 the reader of the output has ended.",
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(run, train, ablate, ensemble, evaluate, compare, attack, corruptions, verify, audit),
    *(explain, predict, serve, export, report, card),
):
    app.command(cls=WithOldOptions)(command)
app.command()(layers)
app.command("list")(list_plugins)
data_app.command(cls=WithOldOptions)(labels)
data_app.command(cls=WithOldOptions)(compare_data)
app.add_typer(data_app, name="data")
app.command()(init)
app.command()(schema)
app.add_typer(lab_app, name="lab")
app.command()(doctor)
app.command("help")(help_)
app.callback()(orientation)


COMMAND_LINE = partial(app, prog_name="stresslens")


def main(command: Callable[[], object] = COMMAND_LINE) -> None:
    """Runs the command line; every error becomes one message and its exit code. The traceback of one
    that nobody expected goes to a file."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    notices_are_sentences()
    with harmless_output():
        try:
            with listening(Advance(), print_forecast):
                command()
        except (StresslensError, Stopped) as error:
            typer.echo(f"stresslens: {error}" if "\n" not in str(error) else str(error), err=True)
            sys.exit(error.exit_code)
        except (BrokenPipeError, SystemExit) as end:
            # click ends the command with 1 where the reader has ended
            if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
                raise
            _silence(sys.stdout)
            sys.exit(141)
        except OSError as error:
            typer.echo(f"stresslens: {_refused(error)}", err=True)
            sys.exit(1)
        except Exception as error:
            typer.echo(f"stresslens: {_unexpected(error)}", err=True)
            sys.exit(1)


def _refused(error: OSError) -> str:
    """What the system refused, and why."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    return readable(": ".join(filter(None, [str(path or ""), refusal(error, path)])))


def _unexpected(error: Exception) -> str:
    """One line on an error that nobody expected, and where its traceback is."""
    what = readable(f"{type(error).__name__}: {first_line(error)}"[:500])
    report = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="stresslens-traceback-", suffix=".txt", errors="backslashreplace", delete=False
        ) as file:
            file.write(report)
    except OSError:
        return f"unexpected {what}\n{report}"
    return f"unexpected {what}. This is a mistake of stresslens; its traceback is in {file.name}"


def _silence(stream: TextIO) -> None:
    """Lets a stream whose reader has ended swallow what is still in its buffer."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(f"stopped by {signal.Signals(number).name}; what was finished is saved", number)
