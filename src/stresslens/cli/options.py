"""Options that several commands share, and old option names that still work."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from stresslens.cli.completion import plugins_of, runs, words
from stresslens.cli.run_arguments import check_one_run, checked_run, checked_run_or_file
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.spelling import near

RunArgument = Annotated[
    Path,
    typer.Argument(
        help="A run's folder (…/seed-0), or a variant's with one run.",
        callback=checked_run,
        autocompletion=runs,
    ),
]

RunOrFile = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|FILE",
        help="A run's folder (…/seed-0), or a variant's with one run; a file of predictions (.csv, …), or "
        "of a model (.onnx, .pt2, …).",
        callback=checked_run_or_file,
        autocompletion=runs,
    ),
]

Trust = Annotated[bool, typer.Option("--trust", help="Also execute plug-ins that are not built in.")]

Norm = Annotated[
    str, typer.Option("--norm", help="linf, l2 or l1.", autocompletion=words("linf", "l2", "l1"))
]

HeldOutSplit = Annotated[
    str,
    typer.Option("--split", help="test or validation.", autocompletion=words("test", "validation")),
]

DataNow = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Where the run's data lie now, if they have moved; default: where they were.",
        show_default=False,
    ),
]

DataSet = Annotated[
    str,
    typer.Argument(
        help="A dataset (digits, mnist, {mnist: {validation: 5000}}), or the path of your images.",
        autocompletion=plugins_of("datasets"),
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, for example train.epochs=1.", show_default=False)
]

Out = Annotated[Path, typer.Option("--out", help="The folder that holds the studies' folders.")]

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1, …; default: CUDA where there is one.",
        autocompletion=words("cpu", "cuda"),
    ),
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
        help="score=value, for example accuracy=0.97, balanced_accuracy=0.9 or f1@CLASS=0.8, or "
        "accuracy.low=0.97 for the lower end of its interval; exit code 5 if a run is below.",
        show_default=False,
    ),
]
FailOver = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-over",
        help="As --fail-under, for scores of which less is better: ece=0.05, brier=0.1, cross_entropy=0.3, "
        "or ece.high=0.05 for the upper end of its interval; exit code 5 if a run is above.",
        show_default=False,
    ),
]


AverageOver = Annotated[
    list[str] | None,
    typer.Option(
        "--tta",
        help="Test-time augmentation: average the probabilities over these views too; flip, "
        "vertical_flip, quarter_turns or five_crops; may be repeated.",
        autocompletion=words("flip", "vertical_flip", "quarter_turns", "five_crops"),
        show_default=False,
    ),
]


class WithOldOptions(TyperCommand):
    """A command that also takes the option names of version 0.1.0, with one Notice, and says what is
    wrong with further arguments."""

    OLD: ClassVar[dict[str, str]] = {
        "--alone": "--individual-attack",
        "--passes": "--eot-samples",
        "--answer": "--target-class",
        "--by": "--images-from",
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes a line that is not finished
            return super().parse_args(ctx, args)
        own = {name for parameter in self.params for name in parameter.opts}
        old = {text: new for text, new in self.OLD.items() if new in own}
        names = [text.partition("=")[0] for text in args]
        if used := sorted(set(names) & set(old)):
            words = ", ".join(f"{name} is now {old[name]}" for name in used)
            warnings.warn(f"{words}; the old names still work", Notice, stacklevel=2)
        args = [old.get(name, name) + text[len(name) :] for name, text in zip(names, args)]
        if any(parameter.name == "overrides" for parameter in self.params):
            _check_no_setting(args, {*own, *ctx.help_option_names})
        ctx.allow_extra_args = True
        more = super().parse_args(ctx, list(args))
        check_one_run(str(ctx.info_name), args, more)
        return more


def _check_no_setting(words: list[str], known: set[str]) -> None:
    """Raises ConfigError for a setting that is written as an option: `--epochs 3`."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word == "--":
            return
        if not name.startswith("--") or name in known:
            continue
        from stresslens.config.setting_keys import keys_meant, setting_keys
        from stresslens.config.study_keys import STUDY_KEYS

        key = name[2:].replace("-", "_")
        following = value if equals else next(iter(words[place + 1 : place + 2]), "VALUE")
        exact = key in setting_keys() or key in STUDY_KEYS
        meant = key if exact else keys_meant(key, {})
        if meant and (exact or not near(name, sorted(known))):
            raise ConfigError(
                f"there is no option {name}; a setting is written without dashes, for example "
                f"{meant.split()[0].rstrip(',')}={following}"
            )
