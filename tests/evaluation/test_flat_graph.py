"""A flat graph computes what the net computes: in torch, and in the script of a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from page_programs import in_node, needs_node
from small_models import model_of
from torch import Tensor, nn

from stresslens.core.ensembles import Ensemble
from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize, with_input_layers
from stresslens.evaluation import flat_graph as module
from stresslens.evaluation.flat_graph import flat_graph

SHAPE = (1, 28, 28)


def random_norms(net: nn.Module) -> None:
    """Weights and statistics that a norm has after training, not 0 and 1."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d | nn.PReLU):
            nn.init.uniform_(layer.weight, 0.2, 1.5)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)


class Everything(nn.Module):
    """Convolutions, norms, functions, pooling and moves of many kinds, also in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding="same", dilation=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 12, 2, stride=2, groups=4)
        self.reflecting = nn.Conv2d(12, 12, (3, 5), padding=(1, 2), padding_mode="reflect")
        self.norms = nn.ModuleList(
            [
                nn.GroupNorm(3, 12),
                nn.LayerNorm([12, 14, 14]),
                nn.InstanceNorm2d(12, affine=True),
                nn.BatchNorm2d(12),
            ]
        )
        self.prelu, self.dropout = nn.PReLU(12), nn.Dropout(0.5)
        self.hidden, self.last, self.side = nn.Linear(192, 20), nn.Linear(20, 5), nn.Linear(12, 5)
        random_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        x = F.relu_(x + self.depthwise(x))
        x = F.elu(self.norms[0](F.silu(self.grouped(x))))
        x = torch.tanh(self.norms[2](F.leaky_relu(self.norms[1](x), 0.1)))
        x = self.norms[3](x)
        y = self.reflecting(x)
        x = F.hardswish(self.prelu(x * torch.sigmoid(y.mean((2, 3), keepdim=True))))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = torch.cat([x[:, :6], x[:, 6:].flip(-1)], 1)
        first, second = x.chunk(2, 1)
        x = F.pad(torch.stack([first, second], 2).flatten(1, 2), (1, 0, 0, 1), value=0.3)
        x = F.adaptive_avg_pool2d(F.avg_pool2d(x, 3, 2, 1), 4)
        highest = x.amax((2, 3))
        x = self.dropout(F.softplus(self.hidden(x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1))))
        odds = (1 - torch.softmax(self.side(highest), 1)) ** 2
        return F.log_softmax(self.last(x) * 2, 1) - 0.5 + self.side(highest) / 3 + odds


def resized() -> nn.Sequential:
    """Bicubic resizing with antialiasing, colours, and pooling into windows of two sizes."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d((5, 7)), nn.Flatten(), nn.Linear(140, 5)
    )
    return with_input_layers(net, Normalize.by_moments([0.5] * 3, [0.2] * 3), (17, 40), "bicubic")


def small_resnet() -> nn.Sequential:
    net = model_of("wide_resnet", SHAPE)
    from stresslens.config import registry

    small = registry.resolve("models", {"wide_resnet": {"depth": 10, "widen": 1}})
    net[-1] = small(shape=SHAPE, classes=4, names=list("abcd"))
    random_norms(net)
    return net


NETS = {
    **{
        name: lambda name=name: model_of(name, SHAPE)
        for name in ("linear", "mlp", "lenet", "simple_cnn", "first_cnn", "simple_net")
    },
    "everything": lambda: nn.Sequential(Everything()),
    "resized": resized,
    "small resnet": small_resnet,
    "ensemble": lambda: nn.Sequential(Ensemble([model_of("lenet", SHAPE), model_of("mlp", SHAPE)])),
}


@pytest.mark.breadth(2)
@pytest.mark.parametrize("name", list(NETS))
def test_the_net_in_torch_and_in_the_page(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    shape = (3, 28, 28) if name == "resized" else SHAPE
    graph = flat_graph(net, shape)
    x = torch.rand(9, *shape, generator=torch.Generator().manual_seed(1))
    expected = net(x).detach()
    assert torch.allclose(graph.run(x), expected, atol=1e-5)
    assert not graph.run(x[:1]).equal(graph.run(x[1:2])), "images are told apart"


@pytest.mark.breadth(1)
@needs_node
@pytest.mark.parametrize("name", list(NETS))
def test_the_script_computes_it_in_node(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    shape = (3, 28, 28) if name == "resized" else SHAPE
    x = torch.rand(9, *shape, generator=torch.Generator().manual_seed(1))
    found = torch.tensor(in_node(flat_graph(net, shape), x, tmp_path))
    assert torch.allclose(found, net(x).detach(), atol=1e-5)


FUNCTIONS = {
    "relu6": F.relu6,
    "selu": F.selu,
    "mish as its parts": lambda x: x * torch.tanh(F.softplus(x)),
    "gelu of tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.25),
    "clamp": lambda x: x.clamp(min=-1),
    "square root of the size": lambda x: (x.abs() + 1e-3).sqrt(),
    "minimum": lambda x: torch.minimum(x, -x) - torch.maximum(x, x * 0.5),
    "reversed difference": lambda x: 1.5 - x,
    "exponential": lambda x: torch.exp(-x),
}


class Function(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.name](6 * x.flatten(1) - 3)


@pytest.mark.breadth(5)
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_of_single_values(name: str) -> None:
    x = torch.rand(4, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(Function(name))
    assert torch.allclose(flat_graph(net, (1, 3, 5)).run(x), net(x), atol=1e-6)


@pytest.mark.slow
@needs_node
def test_the_scripts_functions(tmp_path: Path) -> None:
    x = torch.rand(4, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    for name in FUNCTIONS:
        net = nn.Sequential(Function(name))
        found = torch.tensor(in_node(flat_graph(net, (1, 3, 5)), x, tmp_path))
        assert torch.allclose(found, net(x), atol=2e-6), name


def test_weights_that_occur_twice_are_held_once() -> None:
    shared = nn.Linear(784, 784)
    graph = flat_graph(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), SHAPE)
    assert len(graph.content) == 4 * (784 * 784 + 784)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(28, 2, batch_first=True)
        self.last = nn.Linear(784, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0]
        return self.last(self.attention(rows, rows, rows, need_weights=False)[0].flatten(1))


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sort(1)[0]


class Together(nn.Module):
    """Looks at the other images of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - x.flatten(1).mean(0, keepdim=True)


class Wide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.double().flatten(1) * 2).float()


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            Attending,
            r"a page cannot compute scaled_dot_product_attention in \S*attention \(MultiheadAttention\)",
        ),
        (Sorting, r"a page cannot compute sort in 0 \(Sorting\)"),
        (Together, r"mean in 0 \(Together\): it puts the images of a batch together"),
        (Wide, r"in 0 \(Wide\): it computes in float64"),
    ],
)
def test_what_a_page_cannot_compute_is_named(net: type[nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        flat_graph(nn.Sequential(net()).eval(), SHAPE)
    assert "It computes small nets of linear layers, convolution" in str(refused.value)
    assert "--to onnx" in str(refused.value)


def test_batch_norm_of_the_batch_itself() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten())
    with pytest.raises(ConfigError, match=r"in 0 \(BatchNorm2d\): it normalises by the batch itself"):
        flat_graph(net.eval(), SHAPE)


def test_a_net_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    message = re.escape("the net has 9.84 MB of weights, and a page holds at most 8 MB; train a smaller one")
    with pytest.raises(ConfigError, match=message):
        flat_graph(nn.Sequential(nn.Flatten(), nn.Linear(784, 3135)), SHAPE)
    monkeypatch.setattr(module, "MOST_BYTES", 4 * 785 * 10 - 1)
    with pytest.raises(ConfigError, match="MB of weights"):
        flat_graph(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), SHAPE)
