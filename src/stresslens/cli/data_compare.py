"""`stresslens data compare`: how far two sets of pictures differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import plugins_of, words
from stresslens.cli.data import data_value, load_data_set
from stresslens.cli.options import DataNow, Json, Overrides, Trust
from stresslens.cli.run_arguments import checked_run
from stresslens.cli.terminal import print_json, print_table
from stresslens.core.errors import ConfigError
from stresslens.core.run_paths import runs_in

if TYPE_CHECKING:
    from stresslens.evaluation.data_comparison import DataComparison
    from stresslens.evaluation.picture_set import PictureSet

LISTED = 5
"""Images that are printed of those least like A."""
SplitName = words("train", "validation", "test", "all")


# long: the options of a command are spelled out, one after the other
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A|RUN",
            help="A dataset (digits, {mnist: {validation: 5000}}), the path of your images, a folder of "
            "images without classes, or a run, whose training images are meant.",
            autocompletion=plugins_of("datasets"),
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="A dataset, the path of your images, or a folder of images without classes.",
            autocompletion=plugins_of("datasets"),
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="data.key=value, of every dataset that is named.", show_default=False),
    ] = None,
    split_a: Annotated[
        str | None,
        typer.Option(
            "--split-a",
            help="Images of A: train, validation, test or all; default: all, of a run train.",
            autocompletion=SplitName,
            show_default=False,
        ),
    ] = None,
    split_b: Annotated[
        str | None,
        typer.Option(
            "--split-b",
            help="Images of B: train, validation, test or all; default: all.",
            autocompletion=SplitName,
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            "--features",
            help="What the classifier sees: pictures, or network, the inputs of the run's last linear layer.",
            autocompletion=words("pictures", "network"),
        ),
    ] = "pictures",
    images: Annotated[
        int,
        typer.Option("--images", min=20, help="Compare at most so many random images of each."),
    ] = 5000,
    data: DataNow = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure how far two sets of images differ.

    A classifier that sees cheap features of the images learns to tell A from B; its held-out AUROC has an
    interval and a permutation p (0.5: no difference). Brightness, contrast, sizes, class shares and more
    are compared one by one. Images in both sets are named and left out. No network is trained.
    """
    from stresslens.evaluation.compared_sets import compare_with_run
    from stresslens.evaluation.drift import compare_sets

    if features not in ("pictures", "network"):
        raise ConfigError(f"--features {features}: expected pictures or network")
    if runs_in(Path(b)):
        raise ConfigError(f"{b} is the folder of a run; the run comes first: stresslens data compare RUN B")
    settings = overrides or []
    if runs_in(Path(a)):
        found = compare_with_run(
            checked_run(Path(a)),
            lambda size: _picture_set(b, settings, split_b, images, size),
            features="network" if features == "network" else "pictures",
            split=split_a,
            most=images,
            trust=trust,
            data=data,
        )
    else:
        if features == "network":
            raise ConfigError(f"--features network: {a} is no run; give a run as A, whose network is meant")
        if (a, split_a) == (b, split_b):
            raise ConfigError(
                f"A and B are the same images of {a}; choose parts with --split-a and --split-b"
            )
        first = _picture_set(a, settings, split_a, images)
        size = None if first.shape is None else (first.shape[1], first.shape[2])
        found = compare_sets(first, _picture_set(b, settings, split_b, images, size))
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _picture_set(
    text: str, overrides: Overrides, split: str | None, most: int, size: tuple[int, int] | None = None
) -> PictureSet:
    """The set of pictures that an argument names. A data set whose images differ in size gets `size`."""
    from stresslens.evaluation.compared_sets import checked_split, set_without_classes
    from stresslens.evaluation.picture_set import PictureSet

    checked = checked_split(split, "all")
    found = set_without_classes(Path(text).expanduser(), split, most, 0)
    if found is not None:
        return found
    return PictureSet.of_data(load_data_set(data_value(text, overrides or []), size), checked, most, 0)


def _print(found: DataComparison) -> None:
    from stresslens.core.format import p_value

    rows = [
        [
            each.name,
            f"{each.a:.4g}",
            f"{each.b:.4g}",
            f"{each.difference.value:+.3g} ({each.difference.low:+.3g} to {each.difference.high:+.3g})",
            f"{each.standardised:+.2f}",
            p_value(each.p_corrected),
        ]
        for each in found.properties
    ]
    columns = ["property", "A", "B", "difference (95 %)", "standardised", "p, corrected"]
    print_table(columns, rows, f"A: {found.a.name}; B: {found.b.name}")
    typer.echo(f"{found.sentence}.")
    for sentence in found.sentences:
        typer.echo(f"{sentence}.")
    typer.echo("images of B that are least like A (p: share of A's images as far from the others of A):")
    for image in found.least_like[:LISTED]:
        typer.echo(f"    {image.image} (p {p_value(image.p)})")
