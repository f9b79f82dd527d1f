"""`stresslens layers`: the labs' counts, by hand; models, shapes, data sets and runs as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Type = Callable[..., tuple[int, str, str]]

COUNTS: dict[str, tuple[list[str], int, dict[str, tuple[int, int]]]] = {
    "lab D": (["simple_cnn", "1x28x28"], 799_078, {"conv": (9_568, 31_360), "linear": (789_510, 510)}),
    "lab D with batch norm": (
        ["{simple_cnn: {batch_norm: true}}", "1x28x28"],
        800_206,
        {"conv": (9_568, 31_360), "linear": (789_510, 510)},
    ),
    "lab G": (["{mlp: {widths: [100]}}", "3×32×32"], 308_310, {"linear": (308_310, 110)}),
    "hundred classes": (
        ["{mlp: {widths: [100]}}", "3x32x32", "--classes", "100"],
        307_300 + 101 * 100,
        {"linear": (307_300 + 101 * 100, 200)},
    ),
    "a data set": (["linear", "digits"], 650, {"linear": (650, 10)}),
}


@pytest.mark.parametrize("which", COUNTS)
def test_parameters_and_neurons_by_hand(type_: Type, which: str) -> None:
    words, parameters, by_kind = COUNTS[which]
    code, out, _ = type_("layers", *words, "--json")
    assert code == 0
    table = json.loads(out)
    assert table["parameters"] == parameters == sum(layer["parameters"] for layer in table["layers"])
    for kind, (own, neurons) in by_kind.items():
        assert table["by_kind"][kind] == {"parameters": own, "neurons": neurons}


def test_how_parameters_are_counted_is_shown(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n"
        "def odd(shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, (1, 5), groups=4, bias=False),\n"
        "        nn.ConvTranspose2d(8, 6, 2, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(6, classes))\n"
    )
    code, out, _ = type_("layers", "odd.py:odd", "3x12x12")
    assert code == 0
    for formula, number in (
        ("(3·3·3 + 1)·8", "224"),
        ("2·1·5·8", "80"),
        ("(8·2·2 + 1)·3", "102"),
        ("(6 + 1)·10", "70"),
    ):
        (line,) = [line for line in out.splitlines() if formula in line]
        assert number in line


def test_of_a_run(type_: Type) -> None:
    assert type_("train", "{digits: {subset: 100}}", "linear", "train.epochs=1", "--name", "a")[0] == 0
    (run,) = Path("runs/train").glob("*/seed-0")
    code, out, _ = type_("layers", str(run))
    assert code == 0
    assert "650 trainable" in out
    assert type_("layers", str(run), "3x3x3")[0] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simple_cnn"], "say what simple_cnn gets: a shape"),
        (["knn", "digits"], "knn is an estimator, which has no layers"),
        (["simple_cn", "3x8x8"], "did you mean 'simple_cnn'"),
        (["simple_cnn", "1x2x2"], "needs at least 4×4 pixels"),
        (["linear", "digits", "--classes", "3"], "digits has its own classes"),
        (["linear", "3x8"], "no dataset is called '3x8'"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_said(type_: Type, words: list[Any], said: str) -> None:
    code, out, err = type_("layers", *words)
    assert code == 2
    assert said in err
    assert out == ""
