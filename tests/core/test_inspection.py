"""Layers found, and how their outputs lie on the image, by the model and not by the images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.inspection import layer_to_explain, layout_of, spatial, tapped


@pytest.mark.parametrize(
    ("two", "three", "module", "axes", "sides", "extra"),
    [
        ((2, 16, 4, 6), (3, 16, 4, 6), None, (0, 1, 2, 3), (4, 6), 0),
        ((2, 4, 6, 16), (3, 4, 6, 16), None, (0, 3, 1, 2), (4, 6), 0),
        ((2, 6, 4, 6), (3, 6, 4, 6), nn.Conv2d(1, 6, 1), (0, 1, 2, 3), (4, 6), 0),
        ((2, 4, 6, 6), (3, 4, 6, 6), nn.LayerNorm(6), (0, 3, 1, 2), (4, 6), 0),
        ((2, 24, 8), (3, 24, 8), None, (0, 1, 2), (4, 6), 0),
        ((2, 26, 8), (3, 26, 8), None, (0, 1, 2), (4, 6), 2),
        ((25, 2, 8), (25, 3, 8), None, (1, 0, 2), (4, 6), 1),
        ((8, 24, 8), (12, 24, 8), None, None, None, None),  # windows: more rows than images
        ((2, 16, 1, 1), (3, 16, 1, 1), None, None, None, None),
        ((2, 10), (3, 10), None, None, None, None),
    ],
)
def test_the_layout_by_two_shapes(
    two: tuple[int, ...],
    three: tuple[int, ...],
    module: nn.Module | None,
    axes: tuple[int, ...] | None,
    sides: tuple[int, int] | None,
    extra: int | None,
) -> None:
    layout = layout_of(two, three, (16, 24), module)
    if axes is None:
        assert layout is None
        return
    assert layout is not None
    assert (layout.axes, layout.sides, layout.extra) == (axes, sides, extra)
    values = torch.arange(torch.Size(two).numel()).view(two)
    channels = two[axes[1]] if len(two) == 4 else two[2]
    assert layout.grid(values).shape == (2, channels, *layout.sides)


class TokensFirst(nn.Module):
    """Tokens, images, channels: torch's own transformer, as it is by default."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = batch_first
        self.patch, self.norm = nn.Conv2d(1, 8, 4, 4), nn.LayerNorm(8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if not self.first:
            tokens = tokens.transpose(0, 1)
        tokens = self.block(self.norm(tokens))
        logits: Tensor = self.head(tokens.mean(1 if self.first else 0))
        return logits


@pytest.mark.breadth(2)
@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize("layer", ["auto", "norm", "block.norm1"])
def test_tokens_before_images_are_laid_out_as_they_are(layer: str, n: int) -> None:
    """Also where there are as many images as tokens (16), or one image."""
    import stresslens as sl

    x = torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found, expected = (
        sl.explain(TokensFirst(first).eval(), x, {"gradcam": {"layer": layer}}) for first in (False, True)
    )
    assert found.unit == expected.unit
    assert found.maps == pytest.approx(expected.maps, abs=1e-5)
    found, expected = (sl.explain(TokensFirst(first).eval(), x, "rollout") for first in (False, True))
    assert found.maps == pytest.approx(expected.maps, abs=1e-5)


class TwiceTapped(nn.Module):
    """A layer that runs twice, a result that is changed in place, and a branch that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.same = nn.Conv2d(2, 2, 3, padding=1), nn.Identity()
        self.head, self.unread = nn.Linear(2, 3), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu_()
        x = self.conv(x)
        self.unread(x)
        x += 1
        x.mul_(2)
        logits: Tensor = self.head(self.same(x).mean((2, 3)))
        return logits


def test_what_is_kept_is_what_the_layer_gave_and_the_gradient_passes_through_it() -> None:
    model, x = TwiceTapped().eval(), torch.rand(2, 2, 6, 6)
    with tapped(model) as outputs:
        logits = model(x)
    second = model.conv(model.conv(x).relu())
    assert torch.allclose(outputs["conv"], second)
    assert torch.allclose(outputs["same"], 2 * (second + 1))
    (slope,) = torch.autograd.grad(logits.sum(), outputs["conv"])
    expected = 2 * model.head.weight.sum(0) / 36
    assert torch.allclose(slope, expected[:, None, None].expand_as(slope))
    assert torch.equal(model(x), logits)
    assert list(outputs)[-1] == "head"
    assert layer_to_explain(model, x) == "conv"


class DeadForDark(nn.Module):
    """A second convolution that answers bright images only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 2)
        nn.init.constant_(self.a.weight, 1.0)
        nn.init.constant_(self.b.weight, 0.1)
        nn.init.constant_(self.b.bias, -5.0)  # not even noise passes the ReLU
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        logits: Tensor = self.head((h + self.b(h).relu()).mean((2, 3)))
        return logits


def test_the_layer_is_a_matter_of_the_model() -> None:
    model = DeadForDark()
    for x in (torch.zeros(1, 1, 8, 8), torch.rand(3, 1, 8, 8), torch.ones(2, 1, 8, 8)):
        assert layer_to_explain(model, x) == "b"
        assert list(spatial(model, x)) == ["a", "b"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused_in_words_and_scripted_parts_are_left_out() -> None:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    tail = [nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 3)]
    x = torch.rand(2, 1, 8, 8)
    scripted, whole = torch.jit.script(inner), torch.jit.script(nn.Sequential(inner, *tail))
    with pytest.raises(ConfigError, match="scripted"):
        layer_to_explain(whole, x)
    model = nn.Sequential(scripted, *tail)
    assert list(spatial(model, x)) == ["1"]
    assert layer_to_explain(model, x) == "1"
