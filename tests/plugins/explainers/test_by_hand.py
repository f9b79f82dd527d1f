"""Explainers on networks whose weights were set by hand, against numbers redone by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.plugins.explainers.gradcam import gradcam
from stresslens.plugins.explainers.integrated_gradients import integrated_gradients
from stresslens.plugins.explainers.occlusion import occlusion
from stresslens.plugins.explainers.rollout import rollout
from stresslens.plugins.explainers.saliency import saliency
from stresslens.plugins.explainers.smooth_grad import smooth_grad
from stresslens.plugins.models.vit import vit

SHAPE = (2, 5, 7)


def linear(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(70, classes))


def images(n: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(n, *SHAPE), torch.arange(n) % 3


def weights_of(net: nn.Sequential, y: Tensor) -> Tensor:
    return net[1].weight[y].detach().view(-1, *SHAPE)


# --- occlusion ----------------------------------------------------------------------------------------------


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0, 2.0, -1.0]).expand(len(x), 3)


@pytest.mark.parametrize("credit", ["centre", "covered"])
def test_occlusion_of_a_constant_model_is_zero(credit: str) -> None:
    x, y = images()
    maps = occlusion(Constant(), x, y, None, size=3, credit=credit)
    assert maps.values.shape == (4, 5, 7)
    assert torch.equal(maps.values, torch.zeros(4, 5, 7))
    assert maps.signed


@pytest.mark.parametrize(("size", "above", "left"), [(1, 0, 0), (3, 1, 1), ((2, 4), 0, 1), ((5, 7), 2, 3)])
def test_occlusion_is_the_loss_under_the_window_centred_at_each_pixel(
    size: int | tuple[int, int], above: int, left: int
) -> None:
    """Redone position by position; the image is not square, so that swapped axes show, and nothing
    is skipped at the edges."""
    net = linear()
    x, y = images()
    high, wide = (size, size) if isinstance(size, int) else size
    expected = torch.zeros(4, 5, 7)
    for row in range(5):
        for column in range(7):
            covered = x.clone()
            covered[
                :, :, max(0, row - above) : row - above + high, max(0, column - left) : column - left + wide
            ] = 0.25
            lost = (net(x) - net(covered)).gather(1, y[:, None])[:, 0]
            expected[:, row, column] = lost.detach()
    found = occlusion(net, x, y, None, size=size, fill=0.25, of="logit").values
    assert torch.allclose(found, expected, atol=1e-5)


def test_occlusion_with_a_stride_fills_the_whole_map() -> None:
    net = linear()
    x, y = images()
    whole = occlusion(net, x, y, None, size=3, of="logit").values
    coarse = occlusion(net, x, y, None, size=3, stride=3, of="logit").values
    assert coarse.shape == whole.shape
    for top in range(0, 5, 3):
        for start in range(0, 7, 3):
            block = coarse[:, top : top + 3, start : start + 3]
            assert torch.equal(block, block[:, :1, :1].expand_as(block))
    assert torch.allclose(coarse[:, 0, 0], whole[:, 1, 1], atol=1e-6)
    assert torch.allclose(coarse[:, 3, 3], whole[:, 4, 4], atol=1e-6)


def test_what_a_window_is_filled_with_and_what_is_shown() -> None:
    net = linear()
    x, y = images()
    train = Split((x * 255).round().to(torch.uint8), y)
    colour = (x * 255).round().div(255).mean((0, 2, 3))
    covered = x.clone()
    covered[:, :, 2, 3] = colour
    shown = occlusion(net, x, y, train, size=1, fill="mean", of="probability", drop=False)
    assert torch.allclose(
        shown.values[:, 2, 3], net(covered).softmax(1).gather(1, y[:, None])[:, 0], atol=1e-5
    )
    assert not shown.signed
    flat = torch.full_like(x, 0.3)
    assert torch.allclose(occlusion(net, flat, y, None, fill="blur").values, torch.zeros(4, 5, 7), atol=1e-5)
    log = occlusion(net, x, y, None, size=1, of="log_probability").values
    probability = occlusion(net, x, y, None, size=1, of="probability", drop=False).values
    clean = net(x).log_softmax(1).gather(1, y[:, None]).detach()
    assert torch.allclose(clean[:, :, None] - log, probability.log(), atol=1e-5)


def test_windows_that_do_not_fit_and_a_mean_of_nothing() -> None:
    x, y = images()
    with pytest.raises(ConfigError, match=r"a window of 6×6 is larger than the image \(5×7\)"):
        occlusion(linear(), x, y, None, size=6)
    with pytest.raises(ConfigError, match="with a stride of 3 windows of 2×4 miss some pixels"):
        occlusion(linear(), x, y, None, size=(2, 4), stride=3, credit="covered")
    with pytest.raises(ConfigError, match="the mean needs training images"):
        occlusion(linear(), x, y, None, fill="mean")


# --- gradients ----------------------------------------------------------------------------------------------


def test_the_gradient_of_a_linear_model_is_its_weights() -> None:
    net = linear()
    x, y = images()
    weights = weights_of(net, y)
    assert torch.allclose(saliency(net, x, y).values, weights.abs().amax(1), atol=1e-6)
    assert torch.allclose(saliency(net, x, y, times="image").values, (weights * x).sum(1), atol=1e-6)
    assert torch.allclose(
        smooth_grad(net, x, y, Draws(0, torch.arange(4)), samples=3).values, weights.abs().amax(1), atol=1e-6
    )
    assert torch.allclose(
        integrated_gradients(net, x, y, None, steps=1).values, (weights * x).sum(1), atol=1e-6
    )
    started = integrated_gradients(net, x, y, None, start=0.5, steps=1).values
    assert torch.allclose(started, (weights * (x - 0.5)).sum(1), atol=1e-6)


def test_the_gradient_of_a_probability() -> None:
    net = linear()
    x, y = images()
    p = net(x).softmax(1).detach()
    rows = net[1].weight.detach()
    own = p.gather(1, y[:, None]) * (rows[y] - p @ rows)
    assert torch.allclose(
        saliency(net, x, y, of="probability").values, own.view(-1, *SHAPE).abs().amax(1), atol=1e-6
    )


@pytest.mark.breadth(1)
@pytest.mark.parametrize("of", ["logit", "probability"])
def test_integrated_gradients_add_up_to_the_difference(of: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 15, 32), nn.ReLU(), nn.Linear(32, 3)
    )
    for parameter in net.parameters():
        parameter.data *= 3  # kinks that a few steps would miss
    x, y = images(6)
    maps = integrated_gradients(net, x, y, None, of=of, steps=4)
    ends = [net(e) if of == "logit" else net(e).softmax(1) for e in (x, torch.zeros_like(x))]
    difference = (ends[0] - ends[1]).gather(1, y[:, None])[:, 0]
    assert maps.notes == ()
    assert torch.allclose(maps.values.sum((1, 2)), difference, atol=1e-3, rtol=1e-3)


def test_integrated_gradients_own_up_to_what_does_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.sum((1, 2, 3))
            return torch.stack([total.round() + 0 * total, total], 1)

    x, _ = images(3)
    monkeypatch.setattr("stresslens.plugins.explainers.integrated_gradients.MOST", 128)
    maps = integrated_gradients(Steps(), x, torch.tensor([0, 1, 0]), None)
    assert maps.notes == ("the sum of 2 of 3 maps is more than 0.1 % off the difference of the scores",)


# --- layers -------------------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two feature maps, the first channel and the negative second; class k takes their means with
    the weights of row k."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0]])[:, :, None, None]
        self.read = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [0.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) @ self.read.T


def test_gradcam_by_hand() -> None:
    x, y = images()
    net = Two()
    seen = torch.stack([x[:, 0], -x[:, 1]], 1)
    expected = (net.read[y][:, :, None, None] / 35 * seen).sum(1).relu()
    found = gradcam(net, x, y)
    assert torch.allclose(found.values, expected, atol=1e-6)
    assert found.unit == "evidence in conv"
    cam = gradcam(net, x, y, kind="layercam").values
    assert torch.allclose(cam, ((net.read[y] / 35).relu()[:, :, None, None] * seen).sum(1).relu(), atol=1e-6)


def test_a_map_that_nothing_speaks_for_is_said_to_be_empty() -> None:
    x, _ = images()
    assert gradcam(Two(), x, torch.full((4,), 1)).notes == (
        "4 of 4 maps are empty: nothing in the layer supports the class",
    )


def test_guided_gradients_pass_no_relu_backwards_where_they_are_negative() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2, bias=False))
    net[0].weight.data = torch.tensor([1.0, 2.0])[:, None, None, None]
    net[3].weight.data = torch.tensor([[1.0] * 4 + [-1.0] * 4, [0.5] * 8])
    x, y = torch.rand(2, 1, 2, 2) + 0.1, torch.tensor([0, 1])
    found = gradcam(net, x, y, guided=True)
    plain = gradcam(net, x, y)
    guided = torch.tensor([1.0, 0.5 + 2 * 0.5])[
        :, None, None
    ]  # class 0: the second map's gradient is negative and does not pass
    assert torch.allclose(found.values, plain.values * guided, atol=1e-6)
    with pytest.raises(ConfigError, match="guided needs a ReLU"):
        gradcam(Two(), x.expand(-1, 2, -1, -1), y, guided=True)


def test_layers_that_are_not_there() -> None:
    x, y = images()
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(60, 3))
    with pytest.raises(ConfigError, match=r"no layer '2' laid out like the image; "):
        gradcam(net, x, y, layer="2")
    with pytest.raises(ConfigError, match=r"valid: 0, 1"):
        gradcam(net, x, y, layer="conv")
    with pytest.raises(
        ConfigError, match="no layer that is laid out like the image and that the logits depend on"
    ):
        gradcam(linear(), x, y)
    assert gradcam(net, x, y, layer="1").unit == "evidence in 1"


def test_rollout_by_hand() -> None:
    torch.manual_seed(0)
    net = vit((1, 8, 12), 3, patch=4, width=8, depth=2, heads=2, mlp=8)
    x = torch.rand(3, 1, 8, 12)
    tokens = net[1](net[0](x))
    mixed = torch.eye(7).expand(3, 7, 7)
    for block in list(net)[2:4]:
        q, k, _ = block.attention.qkv(block.norm1(tokens)).view(3, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / 2).softmax(-1).mean(1)
        mixed = (0.5 * attention + 0.5 * torch.eye(7)) @ mixed
        tokens = block(tokens)
    expected = F.interpolate(mixed[:, :1, 1:].view(3, 1, 2, 3), (8, 12), mode="bilinear")[:, 0]
    with attacked(net):
        assert torch.allclose(rollout(net, x).values, expected.detach(), atol=1e-6)
    with pytest.raises(ConfigError, match="the model has no attention layers"):
        rollout(linear(), *images()[:1])
