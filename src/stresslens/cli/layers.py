"""`stresslens layers`: the layer table of a model before training, or of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresslens.cli.completion import plugins_of
from stresslens.cli.data import data_value, load_data_set
from stresslens.cli.options import Json
from stresslens.cli.terminal import print_json, print_table
from stresslens.core.errors import ConfigError
from stresslens.core.run_paths import runs_in

if TYPE_CHECKING:
    from torch import nn

    from stresslens.core.layer_table import Layer, LayerTable

SHAPE = re.compile(r"(\d+)[x×](\d+)[x×](\d+)")


def layers(
    model: Annotated[
        str,
        typer.Argument(
            help="A model (simple_cnn, {mlp: {widths: [100]}}, FILE.py:NAME), or a run's folder.",
            autocompletion=plugins_of("models"),
        ),
    ],
    images: Annotated[
        str | None,
        typer.Argument(
            help="What the model gets, unless it is a run: a shape (channels×height×width, for example "
            "3x32x32), a dataset, or the path of your images.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes", min=2, help="Number of classes, beside a shape; default: 10.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the layer table of a model.

    For every layer: its output for one image, its parameters and how they are counted, its neurons and
    multiply-adds; below, the totals, by kind too, and the memory that one image takes.
    """
    if runs_in(Path(model)) == [Path(model)]:
        if images is not None or classes is not None:
            raise ConfigError(
                f"{model} is a run, which has its images and classes; leave {images or '--classes'} out"
            )
        table, net = _of_run(Path(model)), None
    else:
        table, net = _of_model(model, images, classes)
    if as_json:
        print_json(table.as_json())
    else:
        _print(table, net, model)


def _of_run(folder: Path) -> LayerTable:
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.record import read_record

    table = read_record(RunFolder(folder)).layers
    if table is None:
        raise ConfigError(
            f"{folder} has no layers: an estimator has none, and a run gets its table when it is trained"
        )
    return table


def _of_model(model: str, images: str | None, classes: int | None) -> tuple[LayerTable, nn.Module]:
    from stresslens.config import registry
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.layer_table import layer_table
    from stresslens.evaluation.saved_model import net_from

    if images is None:
        raise ConfigError(
            f"say what {model} gets: a shape, for example `stresslens layers {model} 3x32x32`, or a dataset"
        )
    value = parse_value(model)
    if registry.model_or_estimator(value) == "estimator":
        raise ConfigError(f"{model} is an estimator, which has no layers")
    if given := SHAPE.fullmatch(images):
        names: Any = [str(k) for k in range(classes or 10)]
        shape, train = tuple(map(int, given.groups())), None
    elif classes is not None:
        raise ConfigError(f"{images} has its own classes; leave --classes out")
    else:
        data = load_data_set(data_value(images))
        names, shape, train = data.classes, data.shape, data.train
    net = net_from(value, shape, names, train, Path.cwd())
    return layer_table(net, shape), net  # type: ignore[arg-type]


def _print(table: LayerTable, net: nn.Module | None, title: str) -> None:
    rows = [
        [
            layer.name or "(network)",
            layer.type,
            "×".join(map(str, layer.output)),
            f"{layer.parameters:,}" if layer.parameters else "",
            _counted(net, layer),
            f"{layer.neurons:,}" if layer.neurons else "",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        ]
        for layer in table.layers
    ]
    total = ["in all", "", "", f"{table.parameters:,}", "", f"{table.neurons:,}", f"{table.multiply_adds:,}"]
    columns = ["layer", "type", "output", "parameters", "counted as", "neurons", "multiply-adds"]
    print_table(
        columns if net else [c for c in columns if c != "counted as"],
        [row if net else [*row[:4], *row[5:]] for row in [*rows, total]],
        title,
    )
    kinds = "; ".join(
        f"{kind}: {sums['parameters']:,} parameters, {sums['neurons']:,} neurons"
        for kind, sums in table.by_kind().items()
    )
    typer.echo(
        f"{table.trainable:,} trainable, {table.parameters - table.trainable:,} other parameters. {kinds}"
    )
    typer.echo(
        f"For one image, float32: input {table.input_megabytes:.2f} MB, forward and backward pass "
        f"{table.activation_megabytes:.2f} MB, parameters {table.parameter_megabytes:.2f} MB, together "
        f"{table.megabytes:.2f} MB"
    )


def _counted(net: nn.Module | None, layer: Layer) -> str:
    """How the parameters of a convolution or a linear layer are counted; empty for others."""
    from torch import nn

    if net is None or not layer.parameters:
        return ""
    module = net.get_submodule(layer.name)
    if isinstance(module, nn.modules.conv._ConvNd):
        sides = "·".join(map(str, module.kernel_size))
        fan_in, outputs = module.in_channels // module.groups, module.out_channels
        if module.transposed:
            fan_in, outputs = module.in_channels, module.out_channels // module.groups
        text, bias = f"{fan_in}·{sides}", module.bias is not None
    elif isinstance(module, nn.Linear):
        text, outputs, bias = str(module.in_features), module.out_features, module.bias is not None
    else:
        return ""
    return f"({text} + 1)·{outputs}" if bias else f"{text}·{outputs}"
