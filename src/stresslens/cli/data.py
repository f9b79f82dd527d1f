"""`stresslens data`: checks a data set, and counts its images, before a model is trained on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresslens.cli.completion import plugins_of
from stresslens.cli.terminal import print_findings, print_json, print_table
from stresslens.core.errors import ConfigError, GateNotMet

if TYPE_CHECKING:
    from torch import Tensor

    from stresslens.core.data import Data
    from stresslens.core.types import Finding
from stresslens.cli.options import DataSet, Json, Trust

SHOWN = 100
"""Classes of a table."""

DataOverrides = Annotated[
    list[str] | None, typer.Argument(help="data.key=value, for example data.size=32.", show_default=False)
]

app = typer.Typer(help="Check a data set before training on it.", no_args_is_help=True, rich_markup_mode=None)


# long: the options of a command are spelled out, one after the other
@app.command("check")
def check(
    data: DataSet,
    overrides: DataOverrides = None,
    checks: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            help="Only this check: a name (blurred_images), a name with options "
            "({blurred_images: {sharpness: 0.01}}), or your own (checks.py:too_red); several times for "
            "several.",
            autocompletion=plugins_of("checks"),
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery", help="Write an SVG file that shows the images to look at.", show_default=False
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="RUN",
            help="Look for copies also by the features of a trained network: a run (…/seed-0).",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 5 if a finding is serious.")] = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Find duplicates, leaks and bad pictures.

    It also finds rare classes and shortcuts. It says first which classes, parts and sizes it found.
    `stresslens list checks` says what each check
    looks for; `data labels` finds wrong labels. It reads the images, whatever their sizes, and needs no
    trained model.
    """
    from stresslens.config.yaml_source import parse_value
    from stresslens.evaluation.data_check import chosen_findings, data_findings, shown_images

    _check_is_svg(gallery)
    loaded = load_data_set(data_value(data, overrides or []))
    by_features = None if features is None else _search_by_features(loaded, features, trust)
    if not as_json:
        _print_contents(loaded)
    if checks:
        found = chosen_findings(loaded, list(map(parse_value, checks)), base=Path.cwd())
    else:
        found = data_findings(loaded)
    if by_features is not None:
        found.append(by_features())
    if as_json:
        print_json([finding.as_json() for finding in found])
    else:
        print_findings(found)
    if gallery is not None:
        _write_images(gallery, f"Images of {loaded.name} to look at", shown_images(loaded, found))
    serious = [finding.audit for finding in found if finding.severity == "serious"]
    if strict and serious:
        raise GateNotMet(f"serious: {', '.join(serious)}")


def _search_by_features(loaded: Data, features: str, trust: bool) -> Callable[[], Finding]:
    """The search for copies by the features of a run, which is opened now."""
    from functools import partial

    from stresslens.evaluation.feature_duplicates import feature_finding, features_model

    return partial(feature_finding, loaded, features_model(features, loaded, trust=trust), features)


@app.command("stats")
def stats(
    data: DataSet,
    overrides: DataOverrides = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery",
            help="Write an SVG file that shows training images of each class.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the images of each class and split.

    It also prints the images' shape and the files that were left out.
    """
    _check_is_svg(gallery)
    loaded = load_data_set(data_value(data, overrides or []))
    if gallery is not None:
        _write_gallery(loaded, gallery)
    if as_json:
        shape, notes = list(loaded.shape), list(loaded.notes)
        print_json(
            {
                "name": loaded.name,
                "shape": shape,
                "classes": list(loaded.classes),
                "images": _counts(loaded),
                "notes": notes,
                "findings": [finding.as_json() for finding in loaded.findings],
            }
        )
        return
    _print_contents(loaded)
    if loaded.findings:
        print_findings(loaded.findings)


@app.command("card")
def card(data: DataSet, as_json: Json = False) -> None:
    """Show what is published of a data set.

    These are its parts, classes, sizes, licence, copies and wrong labels, and how much of an accuracy on
    its test images is chance. Published figures need no files; a data set of your own is counted. What
    we are not sure of is "not known to us".
    """
    from stresslens.evaluation.dataset_card import card_of

    value = data_value(data)
    found = card_of(value, lambda: load_data_set(value))
    if as_json:
        print_json(found.as_json())
        return
    for name, text in found.rows().items():
        typer.echo(f"{name}: {text}")


def _counts(loaded: Data) -> dict[str, list[int]]:
    """The images of each class, by split."""
    return {
        name: split.labels.bincount(minlength=len(loaded.classes)).tolist()
        for name, split in loaded.splits.items()
    }


def _print_contents(loaded: Data) -> None:
    """Print the classes with their images in each split, the sizes of the images, and the notes."""
    counts = _counts(loaded)
    rows = [
        [name, *(str(of_split[k]) for of_split in counts.values())]
        for k, name in enumerate(loaded.classes[:SHOWN])
    ]
    if len(loaded.classes) > SHOWN:
        rows.append([f"{len(loaded.classes) - SHOWN} more", *("…" for _ in counts)])
    rows.append(["all", *(str(sum(of_split)) for of_split in counts.values())])
    print_table(["class", *counts], rows, loaded.name)
    shape = "×".join(map(str, loaded.shape))
    typer.echo(
        f"{len(loaded.classes)} classes, {sum(map(sum, counts.values())):,} images of {shape} "
        f"(channels, height, width), {math.prod(loaded.shape):,} values each"
    )
    if loaded.parts:
        typer.echo(f"parts: {loaded.parts}")
    if sizes := _sizes(loaded):
        typer.echo(sizes)
    for note in loaded.notes:
        typer.echo(f"note: {note}")


def _sizes(loaded: Data) -> str:
    """The sizes of the image files, where they differ from one another; empty otherwise."""
    columns = [split.columns for split in loaded.splits.values() if "width" in split.columns]
    found = [(int(w), int(h)) for each in columns for w, h in zip(each["width"], each["height"])]
    if len(set(found)) < 2:
        return ""
    small, large = (end(found, key=lambda size: size[0] * size[1]) for end in (min, max))
    _, h, w = loaded.shape
    return (
        f"the image files have {len(set(found))} sizes, from {small[0]}×{small[1]} to {large[0]}×{large[1]} "
        f"pixels (width×height); here each is made {w}×{h} ({loaded.fit})"
    )


def _check_is_svg(gallery: Path | None) -> None:
    if gallery is not None and gallery.suffix.lower() != ".svg":
        raise ConfigError(f"--gallery {gallery}: the file is an SVG; give a name that ends in .svg")


def _write_images(path: Path, title: str, images: Mapping[str, Tensor]) -> None:
    """An SVG with a row of images (n, C, H, W) in [0, 1] for each name."""
    from stresslens.core.files import write_bytes
    from stresslens.core.panels import Grid, Picture, image_pixels
    from stresslens.explanation.svg import svg

    if not images:
        typer.echo(f"gallery: there are no images to look at; {path} was not written", err=True)
        return
    rows: list[list[Picture | None]] = [[*map(Picture, image_pixels(each))] for each in images.values()]
    write_bytes(path, svg(Grid(title, rows, list(images))).encode())
    typer.echo(f"gallery: {path}: up to {max(map(len, rows))} images of each finding", err=True)


SHOWN_CLASSES, SHOWN_IMAGES = 20, 8
"""Of a gallery."""


def _write_gallery(data: Data, path: Path) -> None:
    """An SVG of random training images: a row for each class, or for the first `SHOWN_CLASSES`."""
    from stresslens.core.files import write_bytes
    from stresslens.core.panels import Grid, Picture, image_pixels
    from stresslens.core.sampling import shuffled
    from stresslens.core.text import brief
    from stresslens.explanation.svg import svg

    order = shuffled(len(data.train), 0, 0)
    rows: list[list[Picture | None]] = []
    missing: list[str] = []
    names = [brief(name, 24) for name in data.classes[:SHOWN_CLASSES]]
    for k, name in enumerate(names):
        of_class = order[data.train.labels[order] == k][:SHOWN_IMAGES]
        if len(of_class):
            chosen = data.train.select(of_class)
            rows.append([Picture(pixels) for pixels in image_pixels(chosen.floats(chosen.images[:]))])
        else:
            rows.append([])
            missing.append(name)
    write_bytes(path, svg(Grid(f"Training images of {data.name}", rows, names)).encode())
    left_out = len(data.classes) - len(names)
    more = f" of the first {len(names)} classes" if left_out else ""
    none = f"; there are none of {', '.join(missing)}" if missing else ""
    typer.echo(
        f"gallery: {path}: up to {SHOWN_IMAGES} random training images of each class{more}{none}", err=True
    )


def data_value(text: str, overrides: Sequence[str] = ()) -> Any:
    """A dataset's name with options, or the folder dataset for a path, with overrides
    `data.key=value`. Raises ConfigError for others."""
    from stresslens.config import study_file
    from stresslens.config.data_paths import images_at
    from stresslens.config.yaml_source import parse_value, typed_mistakes

    at_path = None if text.lstrip().startswith("{") else images_at(text)
    value = parse_value(text) if at_path is None else at_path
    if not overrides:
        return value
    if others := [each for each in overrides if not each.startswith("data.")]:
        raise ConfigError(f"{others[0]}: only settings of the data are meant here: data.{others[0]}")
    with typed_mistakes():
        described = study_file.expand_study({"data": value}, overrides, name="data", base=Path.cwd())
    return described.variants[0].config.data


def load_data_set(value: Any, size: tuple[int, int] | None = None) -> Data:
    """The data set of a value as `data_value` gives it; images that differ in size are made `size`
    (height, width), or the size that suits them, which is printed."""
    from stresslens.config.data_sets import data_set_of_one_size

    data, made = data_set_of_one_size(value, base=Path.cwd(), size=size)
    if made is not None:
        shown, setting = f"{made[1]}×{made[0]}", made[0] if made[0] == made[1] else f"[{made[0]},{made[1]}]"
        typer.echo(
            f"the images differ in size; they are looked at as {shown} pixels. A "
            f"training needs one size: stresslens train DATA MODEL data.size={setting}",
            err=True,
        )
    return data
