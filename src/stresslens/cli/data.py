"""`stresslens data`: checks a data set, and counts its images, before a model is trained on it."""

from __future__ import annotations

from contextlib import suppress
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresslens.cli.terminal import print_findings, print_json, print_table
from stresslens.core.errors import ConfigError, GateNotMet

if TYPE_CHECKING:
    from stresslens.core.data import Data
from stresslens.cli.options import DataSet, Json

app = typer.Typer(help="Check a data set before training on it.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(
    data: DataSet,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 5 if a finding is serious.")] = False,
    as_json: Json = False,
) -> None:
    """Find duplicates, leaks and rare classes.

    It also finds shortcuts and copies with different labels. Other wrong labels are not looked for.
    It reads the images and needs no trained model.
    """
    from stresslens.evaluation.data_check import data_findings

    loaded = load_data_set(data_value(data), data)
    found = data_findings(loaded)
    if as_json:
        print_json([finding.as_json() for finding in found])
    else:
        print_findings(found)
        for note in loaded.notes:
            typer.echo(f"note: {note}")
    serious = [finding.audit for finding in found if finding.severity == "serious"]
    if strict and serious:
        raise GateNotMet(f"serious: {', '.join(serious)}")


@app.command("stats")
def stats(
    data: DataSet,
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
    loaded = load_data_set(data_value(data), data)
    if gallery is not None:
        _write_gallery(loaded, gallery)
    counts = {
        name: split.labels.bincount(minlength=len(loaded.classes)).tolist()
        for name, split in loaded.splits.items()
    }
    if as_json:
        shape, notes = list(loaded.shape), list(loaded.notes)
        print_json(
            {
                "name": loaded.name,
                "shape": shape,
                "classes": list(loaded.classes),
                "images": counts,
                "notes": notes,
                "findings": [finding.as_json() for finding in loaded.findings],
            }
        )
        return
    rows = [
        [name, *(str(of_split[k]) for of_split in counts.values())] for k, name in enumerate(loaded.classes)
    ]
    rows.append(["all", *(str(sum(of_split)) for of_split in counts.values())])
    print_table(
        ["class", *counts],
        rows,
        f"{loaded.name}: images of {'×'.join(map(str, loaded.shape))} (channels, height, width)",
    )
    for note in loaded.notes:
        typer.echo(note)
    if loaded.findings:
        print_findings(loaded.findings)


SHOWN_CLASSES, SHOWN_IMAGES = 20, 8
"""Of a gallery."""


def _write_gallery(data: Data, path: Path) -> None:
    """An SVG of random training images: a row for each class, or for the first `SHOWN_CLASSES`."""
    from stresslens.core.files import write_bytes
    from stresslens.core.panels import Grid, Picture, image_pixels
    from stresslens.core.sampling import shuffled
    from stresslens.core.text import brief
    from stresslens.explanation.svg import svg

    if path.suffix != ".svg":
        raise ConfigError(f"--gallery {path}: the file is an SVG; give a name that ends in .svg")
    order = shuffled(len(data.train), 0, 0)
    rows: list[list[Picture | None]] = []
    names = [brief(name, 24) for name in data.classes[:SHOWN_CLASSES]]
    for k in range(len(names)):
        chosen = data.train.select(order[data.train.labels[order] == k][:SHOWN_IMAGES])
        rows.append([Picture(pixels) for pixels in image_pixels(chosen.floats(chosen.images[:]))])
    write_bytes(path, svg(Grid(f"Training images of {data.name}", rows, names)).encode())
    left_out = len(data.classes) - len(names)
    more = f" of the first {len(names)} classes" if left_out else ""
    typer.echo(f"gallery: {path}: up to {SHOWN_IMAGES} random training images of each class{more}", err=True)


def data_value(text: str) -> Any:
    """A dataset's name with options, or the folder dataset for a path."""
    from stresslens.config import registry
    from stresslens.config.yaml_source import parse_value

    if text not in registry.all_names("datasets") and not text.lstrip().startswith("{"):
        with suppress(OSError, RuntimeError):  # no path at all
            if Path(text).expanduser().exists():
                return {"folder": {"path": normpath(text)}}
    return parse_value(text)


def load_data_set(value: Any, text: str) -> Data:
    """The data set of a value as `data_value` gives it; `text` is how the command line names it."""
    from stresslens.config import registry
    from stresslens.core.data import Data

    data = registry.resolve("datasets", value, base=Path.cwd())()
    if not isinstance(data, Data):
        raise ConfigError(f"the dataset {text} returned a {type(data).__name__}; expected a stresslens.Data")
    return data
