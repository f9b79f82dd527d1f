"""Only what sees the window is computed: the same logits as those of whole images."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.layers import Normalize
from stresslens.plugins.explainers import _changed_patches
from stresslens.plugins.explainers import occlusion as explainer
from stresslens.plugins.explainers._changed_patches import ChangedPatches, Windows, changed_patches
from stresslens.plugins.explainers._local_layers import Reach, local_layers
from stresslens.plugins.explainers.occlusion import occlusion


def covered(x: Tensor, filler: Tensor, windows: Windows) -> Tensor:
    """(N · P, C, H, W) each image under each window, one pixel after the other."""
    found = []
    for image, fill in zip(x, filler):
        for top, left in zip(windows.tops.tolist(), windows.lefts.tolist()):
            changed = image.clone()
            down = slice(max(0, top), max(0, top + windows.high))
            across = slice(max(0, left), max(0, left + windows.wide))
            changed[:, down, across] = fill[:, down, across]
            found.append(changed)
    return torch.stack(found)


def patches(net: nn.Module, x: Tensor, filler: Tensor, windows: Windows) -> ChangedPatches:
    with torch.no_grad():
        parts = local_layers(net)
        assert parts is not None
        return ChangedPatches(parts, x, filler, windows)


def every_window(height: int, width: int, high: int, wide: int, stride: int = 1) -> Windows:
    """From outside of the image's upper left corner to outside of its lower right one."""
    starts = torch.cartesian_prod(
        torch.arange(1 - high, height, stride), torch.arange(1 - wide, width, stride)
    )
    return Windows(starts[:, 0], starts[:, 1], high, wide)


def activations() -> st.SearchStrategy[nn.Module]:
    return st.sampled_from([nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.ReLU(inplace=True), nn.Dropout(0.5)])


@st.composite
def nets(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor, Windows]:
    """A chain of local layers with a linear layer, images for it, and windows."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    height, width = draw(st.integers(9, 16)), draw(st.integers(9, 16))
    x = torch.rand(2, draw(st.integers(1, 3)), height, width)
    layers: list[nn.Module] = [draw(activations())] if draw(st.booleans()) else []
    values = x
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        padding = draw(st.tuples(*(st.integers(0, side // 2) for side in size)))
        kind = draw(st.sampled_from(["conv", "same", "max", "average"]))
        dilation = draw(st.integers(1, 2))
        fan_in = values.shape[1]
        if kind == "conv":
            layer: nn.Module = nn.Conv2d(
                fan_in, 2 * fan_in, size, stride, padding, dilation, draw(st.sampled_from([1, fan_in]))
            )
        elif kind == "same":
            layer = nn.Conv2d(fan_in, 3, size, padding="same", dilation=dilation)
        elif kind == "max":
            layer = nn.MaxPool2d(size, stride, padding, dilation)
        else:
            layer = nn.AvgPool2d(size, stride, padding)
        reach = [dilation * (side - 1) + 1 for side in size]
        if min(values.shape[2] - reach[0], values.shape[3] - reach[1]) < 1:
            break
        layers.append(layer)
        if draw(st.booleans()):
            channels = layer(values).shape[1]
            norm = nn.BatchNorm2d(channels)
            norm.running_mean, norm.running_var = torch.randn(channels), 0.5 + torch.rand(channels)
            layers.append(norm)
        if draw(st.booleans()):
            layers.append(draw(activations()))
        with torch.no_grad():
            values = nn.Sequential(*layers).eval()(x.clone())
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(values[0].numel(), 4)).eval()
    high, wide = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return net, x, every_window(height, width, high, wide, draw(st.integers(1, 3)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(deadline=None)
@given(nets(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_patches_give_the_logits_of_whole_images(
    found: tuple[nn.Sequential, Tensor, Windows], share: float
) -> None:
    """Chains with strides, paddings, dilations, groups and poolings; windows beyond the edges. However
    many stages are computed on patches, and whether the linear layer is, the logits are the same."""
    net, x, windows = found
    filler = torch.rand_like(x)
    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(_changed_patches, "SHARE", share)
        passes = patches(net, x, filler, windows)
        logits = passes(torch.arange(len(x) * len(windows.tops)))
        expected = net(covered(x, filler, windows))
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@settings(deadline=None)
@given(
    *(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3)),
    *(st.integers(12, 20), st.integers(1, 6), st.integers(-3, 19)),
)
def test_what_changes_is_all_that_sees_the_change(
    kernel: int, stride: int, padding: int, side: int, size: int, start: int
) -> None:
    """Against a layer that looks at each position: what differs lies within, and is no wider but where
    the outputs are not aligned."""
    size = min(size, side)
    start = min(max(start, 0), side - size)
    before, after = torch.zeros(2, 1, side, dtype=torch.double)
    after[:, start : start + size] = 1
    kernel = max(kernel, padding)
    ones = torch.ones(1, 1, kernel, dtype=torch.double)
    plain, other = (F.conv1d(values, ones, stride=stride, padding=padding) for values in (before, after))
    reach = Reach(kernel, stride, padding)
    starts, count = reach.changed(torch.tensor([start]), size, plain.shape[1])
    where = (plain != other)[0].nonzero()[:, 0]
    assert all(starts[0] <= k < starts[0] + count for k in where)
    assert 0 <= starts[0] <= plain.shape[1] - count
    assert count <= (size + kernel - 2) // stride + 1
    seen, wide = reach.seen(starts, count)
    assert (int(seen), wide) == (int(starts) * stride - padding, (count - 1) * stride + kernel)


def test_a_layer_and_a_following_one_reach_as_far_as_both() -> None:
    both = Reach(3, 2, 1).then(Reach(2, 3, 0)).then(Reach(3, 1, 0))
    x = torch.rand(1, 1, 40, dtype=torch.double).requires_grad_()
    ones = [torch.ones(1, 1, k, dtype=torch.double) for k in (3, 2, 3)]
    found = F.conv1d(F.conv1d(F.conv1d(x, ones[0], stride=2, padding=1), ones[1], stride=3), ones[2])
    (slope,) = torch.autograd.grad(found[0, 0, 2], x)
    seen = slope[0, 0].nonzero()[:, 0]
    first, size = both.seen(torch.tensor([2]), 1)
    assert (int(seen[0]), int(seen[-1] - seen[0]) + 1) == (int(first), size)


class WrittenOut(nn.Module):
    """A net whose layers are called in its forward method."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6 * 5 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = torch.relu(self.second(x))
        return self.head(torch.flatten(F.dropout(x, 0.5, self.training), 1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.inner(x)).mean((2, 3)))


class FromTheImage(nn.Module):
    """The image is read again behind the first layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu().mean((2, 3))) + x.mean((1, 2, 3))[:, None]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = 2 if x.mean() > 0.5 else 1
        return self.head(scale * self.conv(x).mean((2, 3)))


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def hooked() -> nn.Module:
    net = chain(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


NETS = {
    "a chain": (lambda: chain(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), True),
    "pixels normalised each": (
        lambda: nn.Sequential(Normalize(torch.rand(1, 14, 14), torch.rand(1, 14, 14)), WrittenOut()),
        True,
    ),
    "calls": (WrittenOut, True),
    "residual": (Residual, True),
    "reads the image again": (FromTheImage, False),
    "branches on values": (Branching, False),
    "a hook changes a layer": (hooked, False),
    "another padding": (lambda: chain(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")), False),
    "rounded up": (lambda: chain(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(1, 2, 1)), False),
    "only poolings": (lambda: chain(nn.MaxPool2d(2), nn.Flatten()), False),
    "a wide kernel": (lambda: chain(nn.Conv2d(1, 2, 13, padding=6)), False),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kept", [4, 1000])
def test_maps_are_those_of_whole_passes(monkeypatch: pytest.MonkeyPatch, name: str, kept: int) -> None:
    """For nets of all kinds, and images one after the other; patches are taken where the first layers
    are known and nothing else reads the image."""
    build, on_patches = NETS[name]
    torch.manual_seed(0)
    x = torch.rand(3, 1, 14, 14)
    net, y = build().eval(), torch.arange(3)
    net(x)
    original, used = explainer.changed_patches, []
    monkeypatch.setattr(explainer, "KEPT", kept)

    def watched(*given: Any) -> Any:
        used.append(original(*given))
        return used[-1]

    with attacked(net):
        monkeypatch.setattr(explainer, "changed_patches", watched)
        maps = occlusion(net, x, y, None, size=3, of="logit").values
        monkeypatch.setattr(explainer, "changed_patches", lambda *given: None)
        whole = occlusion(net, x, y, None, size=3, of="logit").values
    assert bool(used) or not on_patches
    assert all((each is not None) == on_patches for each in used)
    assert torch.allclose(maps, whole, rtol=1e-4, atol=1e-5)


def test_nets_run_in_other_threads_while_one_is_traced() -> None:
    net = NETS["a chain"][0]().eval()
    x = torch.rand(2, 1, 14, 14)
    expected, found, over = net(x), [], threading.Event()

    def run() -> None:
        while not over.is_set():
            found.append(net(x))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(20):
        local_layers(net)
    over.set()
    thread.join()
    assert found
    assert all(torch.equal(each, expected) for each in found)


def test_patches_that_differ_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layer would see less than it does, the check against whole images finds it."""
    net = NETS["a chain"][0]().eval()
    x = torch.rand(2, 1, 14, 14)
    net(x)
    windows = every_window(14, 14, 3, 3)
    filler = torch.zeros_like(x)
    images = covered(x, filler, windows)

    def whole(positions: Tensor) -> Tensor:
        return net(images[positions])

    with torch.no_grad():
        assert changed_patches(net, x, filler, windows, whole) is not None
        seen = Reach.seen
        monkeypatch.setattr(Reach, "seen", lambda *given: (seen(*given)[0] + 1, seen(*given)[1]))
        assert changed_patches(net, x, filler, windows, whole) is None
