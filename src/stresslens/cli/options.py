"""Options that several commands share, and old option names that still work."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from stresslens.core.errors import Notice

RunArgument = Annotated[Path, typer.Argument(help="A run's folder (…/seed-0).")]

Trust = Annotated[bool, typer.Option("--trust", help="Also execute plug-ins that are not built in.")]

Norm = Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")]

DataSet = Annotated[
    str,
    typer.Argument(
        help="A dataset (digits, mnist, {mnist: {validation: 5000}}), or the path of your images."
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, for example train.epochs=1.", show_default=False)
]

Out = Annotated[Path, typer.Option("--out", help="The folder that holds the studies' folders.")]

Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, …; default: CUDA where there is one.")
]

Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Use this one seed instead of the study's.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")]

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only the verdict.")]

Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Without a terminal, print progress every second (default: ten)."),
]

FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        help="score=value, for example accuracy=0.97, or accuracy.low=0.97 for the lower end of its "
        "interval; exit code 5 if a run is below.",
        show_default=False,
    ),
]


class WithOldOptions(TyperCommand):
    """A command that also takes the option names of version 0.1.0, with one Notice."""

    OLD: ClassVar[dict[str, str]] = {
        "--alone": "--individual-attack",
        "--passes": "--eot-samples",
        "--answer": "--target-class",
        "--by": "--images-from",
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for parameter in self.params for name in parameter.opts}
        old = {text: new for text, new in self.OLD.items() if new in own}
        names = [text.partition("=")[0] for text in args]
        if used := sorted(set(names) & set(old)):
            words = ", ".join(f"{name} is now {old[name]}" for name in used)
            warnings.warn(f"{words}; the old names still work", Notice, stacklevel=2)
        args = [old.get(name, name) + text[len(name) :] for name, text in zip(names, args)]
        return super().parse_args(ctx, args)
