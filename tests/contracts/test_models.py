"""What every model keeps to, whatever it is; tests/config/test_registry.py checks the signatures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stresslens.config import registry
from stresslens.config.known_plugins import must_be_told
from stresslens.core.errors import ConfigError
from stresslens.core.layer_table import layer_table
from stresslens.core.layers import Normalize, check_output, with_input_layers
from stresslens.evaluation.saved_model import net_from

CASES = [((1, 28, 28), 10), ((3, 16, 20), 2), ((2, 13, 12), 5)]
VARIANTS = {
    "linear": [{"start": "normal"}],
    "mlp": [{"widths": []}, {"widths": [7, 5]}],
    "first_cnn": [{"channels": 4, "hidden": 8}],
    "lenet": [{"doubled": True}],
    "openclip": [
        {
            "layout": {
                "embed": 8,
                "image": {"width": 8, "layers": 1, "patch": 3},
                "text": {"width": 8, "layers": 1},
            }
        },
        {"head": "linear", "quick_gelu": True},
    ],
    "vit": [
        {
            "patch": 7,
            "depth": 1,
            "norm": "post",
            "activation": "relu",
            "dropout": 0.1,
            "position_std": 1,
            "head": [16],
        },
        {"depth": 2, "width": 16, "heads": 2, "mlp": 8, "pool": "mean"},
    ],
    "torchvision": [
        {"name": "resnet18"},
        {"name": "resnet18", "stem": "small"},
        {"name": "mobilenet_v3_small"},
    ],
    "timm": [{"name": "test_efficientnet"}, {"name": "test_efficientnet", "dropout": 0.1, "drop_path": 0.1}],
    "simple_cnn": [{"batch_norm": True}, {"channels": 3, "hidden": 8}],
    "simple_net": [{"batch_norm": True, "channels": 4}, {"conv": "unfold", "channels": 3}],
    "wide_resnet": [{"depth": 10, "widen": 1}, {"depth": 16, "widen": 2, "dropout": 0.1}],
    "preact_resnet": [{"width": 8}, {"width": 4, "shortcut": "input", "last_norm": False}],
    "window_vit": [
        {"patch": 4, "width": 16, "depth": 3, "heads": 2, "window": 2, "local": [0, 1, 2], "drop_path": 0},
        {"patch": 3, "width": 12, "depth": 1, "heads": 3, "mlp_ratio": 1, "local": []},
    ],
}

LARGE: list[Any] = ["wide_resnet", "preact_resnet", {"torchvision": {"name": "resnet18", "stem": "small"}}]
"""Models of ten million parameters and more that are there in a small form too."""


MODELS = [
    pytest.param(value, id=str(value).replace("'", ""), marks=[pytest.mark.slow] if value in LARGE else [])
    for name in registry.names("models")
    for value in [
        *([] if must_be_told("models", name) else [name]),
        *({name: options} for options in VARIANTS.get(name, [])),
    ]
]
SHAPES = pytest.mark.parametrize(("shape", "classes"), CASES, ids=lambda value: str(value).replace(" ", ""))
pytestmark = pytest.mark.parametrize("value", MODELS)


def model(value: Any, shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return net_from(value, shape, [str(k) for k in range(classes)], None, registry.Path.cwd())


def images(shape: tuple[int, int, int], n: int = 4) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.breadth
@SHAPES
def test_logits_are_finite_and_every_parameter_learns(
    value: Any, shape: tuple[int, int, int], classes: int
) -> None:
    net = model(value, shape, classes).train()
    logits = net(images(shape, 8))
    assert logits.shape == (8, classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    nn.functional.cross_entropy(logits, torch.arange(8) % classes).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    untouched = [n for n, p in net.named_parameters() if not p.grad.abs().sum() > 0]
    assert all(
        "norm" in n or n.endswith("bias") for n in untouched
    )  # a bias before batch norm has no gradient, but a weight has


@pytest.mark.breadth(12)
@SHAPES
def test_the_seed_decides_the_weights_and_images_do_not_mix(
    value: Any, shape: tuple[int, int, int], classes: int
) -> None:
    first, again, other = (model(value, shape, classes, seed=seed).eval() for seed in (3, 3, 4))
    x = images(shape)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    alone = torch.cat([first(x[k : k + 1]) for k in range(len(x))])  # a batch of one, in evaluation mode
    assert torch.allclose(alone, first(x), atol=1e-5)


@pytest.mark.breadth(12)
def test_logits_are_not_probabilities(value: Any) -> None:
    logits = model(value, (1, 28, 28), 10).eval()(images((1, 28, 28), 16))
    assert logits.min() < 0 or logits.max() > 1
    assert (logits.sum(1) - 1).abs().max() > 1e-3
    assert (logits.exp().sum(1) - 1).abs().max() > 1e-3  # nor their logarithms


@pytest.mark.breadth(12)
def test_a_state_dict_goes_round(value: Any) -> None:
    first, second = (model(value, (3, 14, 15), 4, seed=seed) for seed in (1, 2))
    first.train()(images((3, 14, 15)))  # so that running statistics differ as well
    second.load_state_dict({name: entry.clone() for name, entry in first.state_dict().items()})
    x = images((3, 14, 15))
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.breadth(10)
def test_only_the_card_and_the_weights_are_needed(value: Any) -> None:
    """Building on the meta device, as opening a run does, gives the same tensors by name and shape."""
    with torch.device("meta"):
        meta = model(value, (1, 12, 12), 3)
    assert {n: v.shape for n, v in meta.state_dict().items()} == {
        n: v.shape for n, v in model(value, (1, 12, 12), 3).state_dict().items()
    }


@pytest.mark.breadth
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 64), (3, 2, 2), (1, 7, 7), (1, 11, 12)], ids=str)
def test_images_that_are_too_small_are_a_clear_error(value: Any, shape: tuple[int, int, int]) -> None:
    try:
        net = model(value, shape, 3)
    except ConfigError as error:
        message = str(error)
    else:
        check_output(
            with_input_layers(net, Normalize.by_moments([0.0] * shape[0], [1.0] * shape[0])), shape, 3, "it"
        )
        return
    assert f"cannot be built for images of shape {shape}" in message
    assert "at least" in message
    assert f"{shape[1]}×{shape[2]}" in message


@pytest.mark.breadth(12)
def test_float64_works_as_well(value: Any) -> None:
    net = model(value, (1, 12, 12), 3).double()
    assert net(images((1, 12, 12)).double()).dtype == torch.float64


@pytest.mark.breadth(12)
def test_the_rows_of_the_layer_table_add_up(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mha, "_is_fastpath_enabled", False)  # torch's counter does not see inside it
    net = model(value, (3, 14, 15), 4).eval()
    table = layer_table(net, (3, 14, 15))
    assert sum(row.parameters for row in table.layers) == table.parameters
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(images((3, 14, 15), 1))
    assert table.multiply_adds == counter.get_total_flops() // 2
