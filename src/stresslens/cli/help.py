"""`stresslens help`, `--version`, and what `stresslens` says alone or before an unknown command."""

from __future__ import annotations

import platform
import re
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest, near
from stresslens.core.text import printable
from stresslens.core.version import __version__

ORIENTATION = """\
stresslens trains image classifiers, attacks them, looks inside them, and says
which differences are real.

  stresslens train digits linear          train one model; DATA can be the path
                                          of your own images
  stresslens run STUDY.yaml               a whole study, with its report
  stresslens list runs                    the runs that there are
  stresslens attack RUN --radii 8/255     how robust is a run?
  stresslens predict RUN IMAGES           classify image files

RUN is the folder of a run, for example runs/quickstart/cnn/seed-0.
`stresslens --help` lists all commands, `stresslens help COMMAND` describes one."""


OTHER_COMMANDS = {
    **dict.fromkeys(("new", "create"), "init"),
    **dict.fromkeys(("eval", "test", "score"), "evaluate"),
    **dict.fromkeys(("fit", "finetune"), "train"),
    **dict.fromkeys(("show", "plot", "view"), "report"),
    **dict.fromkeys(("infer", "classify"), "predict"),
    "check": "data check",
    "version": "--version",
    "ls": "list",
}
"""Commands of other programs, and the command that they stand for."""


class Commands(TyperGroup):
    """The commands. A study file without its command, an option before it, and a name that is taken for an
    option get a hint."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes a line that is not finished
            return super().parse_args(ctx, args)
        first = args[0] if args else ""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if first.startswith("-") and first not in {*known, "--"}:
            raise ConfigError(
                f"{printable(first)}: options come after the command, for example stresslens run STUDY.yaml "
                f"--seed 3; before it there are only {', '.join(sorted(known))}"
            )
        if first not in self.commands and Path(first).suffix in (".yaml", ".yml"):
            raise ConfigError(
                f"{printable(first)} is no command; did you mean `stresslens run {shlex.join(args)}`?"
            )
        if first and not first.startswith("-") and first not in self.commands:
            raise ConfigError(f"{printable(first)} is no command; {self._command_meant(first)}")
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def _command_meant(self, word: str) -> str:
        groups = {name: getattr(command, "commands", {}) for name, command in self.commands.items()}
        whole = {below: f"{name} {below}" for name, commands in groups.items() for below in commands}
        whole = {**whole, **OTHER_COMMANDS, **{name: name for name in self.commands}}
        meant = near(word, list(whole))
        return f"did you mean `stresslens {whole[meant]}`?" if meant else "`stresslens --help` lists them"

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__name__ != "NoSuchOption":  # of click, or of typer's own copy of it
                raise
            raise ConfigError(_no_such_option(error, ctx)) from None


WORDS = "stresslens.words"
"""Where the command's context keeps the words that were typed."""


def _no_such_option(error: Any, ctx: Any) -> str:
    """What to do about a word that begins with a dash and is no option of the command."""
    option, command = error.option_name, error.ctx.command_path.removeprefix(ctx.command_path).strip()
    pattern = re.escape(option) + "(=|$)" if option.startswith("--") else f"-(?!-).*{re.escape(option[1:])}"
    word = next((word for word in ctx.meta[WORDS] if re.match(pattern, word)), option)
    named = word.partition("=")[0]
    options = [name[2:] for each in error.ctx.command.params for name in each.opts if name.startswith("--")]
    similar = near(named.lstrip("-"), options) if named.startswith("--") else None
    meant = f"did you mean --{similar}?" if similar else f"see `stresslens help {command}`"
    message = f"{command} has no option {named}; {meant}"
    arguments = [each for each in error.ctx.command.params if each.param_type_name == "argument"]
    if not arguments or (similar and not Path(word).exists()):
        return message
    return (
        f"{message}\nPut `--` before names that begin with a dash, behind all options: "
        f"stresslens {command} … -- {shlex.quote(word)}; or write {shlex.quote(f'./{word}')}"
    )


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(
            f"stresslens {__version__} (torch {_installed('torch')}, Python {platform.python_version()})"
        )
        raise typer.Exit


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def orientation(
    ctx: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_print_version, help="Print the versions and stop."
        ),
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ORIENTATION)


def _commands(ctx: typer.Context, incomplete: str) -> list[str]:
    above: Any = ctx.parent
    return list(above.command.commands)


def help_(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="A command: run, train, data check, …", show_default=False, autocompletion=_commands
        ),
    ] = None,
) -> None:
    """Show the help of a command."""
    above: Any = ctx.parent
    group: Any = above.command
    for name in command or []:
        commands = getattr(group, "commands", {})
        if name not in commands:
            raise ConfigError(f"no command is called {printable(name)!r}; {closest(name, list(commands))}")
        group = commands[name]
        above = type(above)(group, info_name=name, parent=above)
    typer.echo(group.get_help(above))
