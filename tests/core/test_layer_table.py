"""What a net is made of, against figures redone by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.layer_table import layer_table
from stresslens.plugins.models.lenet import lenet
from stresslens.plugins.models.mlp import mlp
from stresslens.plugins.models.simple_cnn import simple_cnn
from stresslens.plugins.models.vit import vit
from stresslens.plugins.models.window_vit import window_vit

MNIST = (1, 28, 28)


# --- figures of the labs ------------------------------------------------------------------------------------


def test_the_labs_simple_cnn() -> None:
    table = layer_table(simple_cnn(MNIST, 10), MNIST)
    assert table.parameters == table.trainable == 799_078
    assert table.neurons == 31_870
    assert table.by_kind() == {
        "conv": {"parameters": 9_568, "neurons": 31_360},
        "linear": {"parameters": 789_510, "neurons": 510},
    }
    assert (
        f"{table.input_megabytes:.2f} {table.activation_megabytes:.2f} {table.parameter_megabytes:.2f}"
        == "0.00 0.55 3.05"
    )
    assert f"{table.megabytes:.2f}" == "3.60"


def test_batch_norm_adds_its_scales_and_shifts() -> None:
    table = layer_table(simple_cnn(MNIST, 10, batch_norm=True), MNIST)
    assert table.parameters == 800_206
    assert table.by_kind()["norm"] == {"parameters": 2 * (32 + 32 + 500), "neurons": 0}
    assert table.neurons == 31_870


def test_the_labs_mlp_on_colour_images() -> None:
    assert layer_table(mlp((3, 32, 32), 10, widths=[100]), (3, 32, 32)).parameters == 308_310


def test_a_convolution_of_three_channels_to_eight() -> None:
    (row,) = layer_table(nn.Sequential(nn.Conv2d(3, 8, 3)), (3, 9, 7)).layers
    assert (row.parameters, row.output, row.neurons) == (224, (8, 7, 5), 280)
    assert row.multiply_adds == 280 * 27
    assert (row.name, row.type, row.kind) == ("0", "Conv2d", "conv")


def test_lenet_on_mnist() -> None:
    assert layer_table(lenet(MNIST, 10), MNIST).parameters == 61_706
    more = (25 * 6 + 1) * 6 + (25 * 16 + 1) * 16
    assert layer_table(lenet(MNIST, 10, doubled=True), MNIST).parameters == 61_706 + more == 69_028


# --- counting -----------------------------------------------------------------------------------------------


def test_multiply_adds_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 2, 3, bias=False)
    )
    table = layer_table(net, (2, 5, 5))
    convolution = 4 * 2 * 2 * (1 * 3 * 3)  # outputs × (channels of a group × kernel)
    assert [row.multiply_adds for row in table.layers] == [convolution, 0, 0, 16 * 3]
    assert table.multiply_adds == convolution + 48
    assert table.parameters == 4 * 9 + 4 + 48


def test_activations_are_counted_twice_and_views_not_at_all() -> None:
    table = layer_table(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Dropout()), (1, 2, 3))
    assert (
        table.activation_megabytes == 2 * (5 + 5) * 4 / 2**20
    )  # Flatten and, in evaluation, Dropout hand on what they got
    assert table.input_megabytes == 6 * 4 / 2**20
    assert table.parameter_megabytes == 35 * 4 / 2**20


def test_a_module_used_twice_has_its_parameters_once() -> None:
    shared = nn.Linear(4, 4)
    table = layer_table(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), (1, 2, 2))
    assert table.parameters == 20 == sum(row.parameters for row in table.layers)
    assert table.neurons == 8


def test_attention_counts_its_scores_and_its_values() -> None:
    net = vit((1, 8, 8), 3, patch=2, width=8, heads=2, mlp=5, depth=1, pool="token")
    table = layer_table(net, (1, 8, 8))
    tokens = 16 + 1
    assert sum(row.multiply_adds for row in table.layers if row.type == "Attention") == 2 * tokens**2 * 8
    linear = tokens * (8 * 24 + 8 * 8 + 2 * 8 * 5) + 8 * 3
    assert table.multiply_adds == 16 * 4 * 8 + linear + 2 * tokens**2 * 8


def test_windows_save_work_and_their_rows_show_all_windows() -> None:
    shape, options = (3, 16, 16), {"patch": 2, "width": 8, "heads": 2, "window": 4, "depth": 1}
    whole = layer_table(window_vit(shape, 3, local=[], **options), shape)
    windows = layer_table(window_vit(shape, 3, local=[0], **options), shape)
    assert whole.multiply_adds - windows.multiply_adds == 2 * 8 * (64**2 - 4 * 16**2)
    (qkv,) = (row for row in windows.layers if row.name.endswith("qkv"))
    assert qkv.output == (4, 16, 24)
    assert qkv.neurons == 4 * 16 * 24


def test_multihead_attention_of_torch_uses_its_output_layer_by_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(*[x.flatten(2).mT] * 3)[0].mean(1)  # type: ignore[no-any-return]

    net = Net().eval()
    table = layer_table(net, (4, 3, 2))
    (row, unused) = table.layers
    assert row.output == (6, 4)
    assert row.multiply_adds == 6 * 4 * 12 + 2 * 36 * 4 + 6 * 16
    assert unused.name == "attention.out_proj"
    assert unused.output == ()
    assert unused.parameters == 20
    assert row.parameters + unused.parameters == table.parameters


class Scaled(nn.Module):
    """Parameters of its own around another layer, and a matrix product without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 5)
        self.scale, self.table = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x.flatten(1)) * self.scale) @ self.table  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("form", ["plain", "within", "scripted", "a scripted part", "traced", "compiled"])
def test_the_rows_add_up(form: str) -> None:
    net: Any = Scaled()
    match form:
        case "within":
            net = nn.Sequential(nn.Identity(), net, nn.ReLU())
        case "scripted":
            net = torch.jit.script(net)
        case "a scripted part":
            net = nn.Sequential(nn.Identity(), torch.jit.script(net))
        case "traced":
            net = torch.jit.trace(net, torch.zeros(1, 1, 2, 3))
        case "compiled":
            net = torch.compile(net, backend="eager")
    table = layer_table(net, (1, 2, 3))
    assert sum(row.parameters for row in table.layers) == table.parameters == 35 + 5 + 20
    if form != "a scripted part":
        assert table.multiply_adds == 30 + 20


def test_frozen_parameters_are_not_trainable() -> None:
    net = mlp((1, 2, 2), 3, widths=[5])
    net[1].requires_grad_(False)
    table = layer_table(net, (1, 2, 2))
    assert (table.parameters, table.trainable) == (43, 18)
    assert [row.trainable for row in table.layers if row.kind == "linear"] == [0, 18]


def test_a_table_is_plain_values() -> None:
    import json

    values = layer_table(mlp((1, 2, 2), 3, widths=[5]), (1, 2, 2)).as_json()
    assert json.loads(json.dumps(values))["by_kind"] == {"linear": {"parameters": 43, "neurons": 8}}
    assert {"neurons", "multiply_adds", "megabytes", "layers", "parameters"} <= values.keys()


def test_a_table_of_a_net_in_float64() -> None:
    assert layer_table(mlp((1, 2, 2), 3).double(), (1, 2, 2)).neurons == 103


def test_a_leaf_that_is_called_by_keyword_is_counted_like_any_other() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(input=x.flatten(1))
            return out

    assert layer_table(Named(), (1, 2, 2)).neurons == 2
