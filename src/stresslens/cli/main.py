"""The command line: one file per command. torch is imported only inside a command, so that --help
is fast."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from stresslens.cli.attack import attack
from stresslens.cli.audit import audit
from stresslens.cli.compare import compare
from stresslens.cli.data import app as data_app
from stresslens.cli.doctor import doctor
from stresslens.cli.evaluate import evaluate
from stresslens.cli.explain import explain
from stresslens.cli.export import export
from stresslens.cli.list import list_plugins
from stresslens.cli.options import WithOldOptions
from stresslens.cli.predict import predict
from stresslens.cli.report import report
from stresslens.cli.run import run
from stresslens.cli.terminal import Advance, print_forecast
from stresslens.cli.train import train
from stresslens.cli.verify import verify
from stresslens.core.errors import Stopped, StresslensError
from stresslens.core.progress import listening
from stresslens.core.text import notices_are_sentences

app = typer.Typer(
    name="stresslens",
    help="Trains image classifiers, attacks them, hardens them, looks inside them, and says which "
    "differences are real.\n\n"
    "Exit codes: 0 ok, 1 unexpected, 2 usage or configuration, 3 data, 4 training diverged, "
    "5 a quality gate not met, 130/143 stopped by a signal after saving, "
    "141 the reader of the output has ended.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, train, evaluate, compare, attack, verify, audit, explain, predict, export, report):
    app.command(cls=WithOldOptions)(command)
app.command("list")(list_plugins)
app.add_typer(data_app, name="data")
app.command()(doctor)


def main(command: Callable[[], object] = app) -> None:
    """Runs the command line; everything stresslens raises on purpose becomes one message and its
    exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    notices_are_sentences()
    try:
        with listening(Advance(), print_forecast):
            command()
    except (StresslensError, Stopped) as error:
        typer.echo(f"stresslens: {error}" if "\n" not in str(error) else str(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(f"stopped by {signal.Signals(number).name}; what was finished is saved", number)
