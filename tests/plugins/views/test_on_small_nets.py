"""Views on small networks whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from stresslens.core.attack_base import attacked
from stresslens.core.colormaps import SIGNED
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Lines, Points
from stresslens.plugins.views.activations import activations
from stresslens.plugins.views.adversarial_examples import adversarial_examples
from stresslens.plugins.views.class_image import class_image
from stresslens.plugins.views.embedding import embedding
from stresslens.plugins.views.filters import filters
from stresslens.plugins.views.impostor import impostor
from stresslens.plugins.views.neighbours import neighbours

CLASSES = ["left", "right"]


def sides(n: int = 40) -> Split:
    """Images 4×8 that are bright on the left or on the right."""
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    x = 0.1 * torch.rand(n, 1, 4, 8, generator=draws)
    x[y == 0, :, :, :4] += 0.8
    x[y == 1, :, :, 4:] += 0.8
    return Split(x, y, 1.0)


def brighter_side() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    weight = torch.zeros(2, 1, 4, 8)
    weight[0, :, :, :4] = weight[1, :, :, 4:] = 1.0
    net[1].weight.data, net[1].bias.data = weight.flatten(1), torch.zeros(2)
    return net


def only(panel_parts: object) -> Grid:
    (grid,) = panel_parts  # type: ignore[misc]
    assert isinstance(grid, Grid)
    return grid


def test_filters_show_every_channel_on_one_scale() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1))
    weight = torch.zeros(3, 2, 3, 3)
    weight[0, 1, 0, 0], weight[2, 0, 2, 1] = -2.0, 1.0
    net[0].weight.data = weight
    panel = filters(net)
    grid = only(panel.parts)
    assert grid.scale == (-2.0, 2.0)
    assert [len(row) for row in grid.rows] == [2, 2, 2]
    first, third = grid.rows[0][1], grid.rows[2][0]
    assert first is not None
    assert third is not None
    assert first.pixels[0, 0].tolist() == list(SIGNED[0])
    assert first.pixels[1, 1].tolist() == list(SIGNED[2])
    assert third.pixels[2, 1].tolist() == list(SIGNED[3])
    assert panel.facts["layer"] == "0"
    assert filters(net, layer="last").facts == {}
    assert filters(net, layer="last").said == ()
    with pytest.raises(ConfigError, match=r"no convolution '1'; .*valid: 0, 2, first, last"):
        filters(net, layer="1")


@pytest.mark.parametrize(("edges", "share"), [(True, 1.0), (False, 0.0)])
def test_edges_are_told_from_other_filters(edges: bool, share: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(3.0) - 1, torch.arange(3.0) - 1, indexing="ij")
    net = nn.Sequential(nn.Conv2d(1, 8, 3))
    angles = torch.arange(8.0)[:, None, None]
    plane = angles.cos() * rows + angles.sin() * columns
    net[0].weight.data = (plane if edges else rows * columns + 0 * plane)[:, None]
    panel = filters(net)
    assert panel.facts["edges"] == pytest.approx(share, abs=1e-6)
    assert (panel.facts["p"] < 0.05) is edges
    assert ("they are edges more often than by chance" in panel.said[0]) is edges


def test_activations_are_the_layers_outputs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, padding=1),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    split = sides(6)
    with attacked(net):
        panel = activations(net, split.images, split.labels, CLASSES, images=2)
        chosen = activations(net, split.images, split.labels, CLASSES, layers=["1"], channels=1)
    assert [part.title for part in panel.parts] == ["0: 3 channels of 4×8", "2: 2 channels of 4×8"]
    first = panel.parts[0]
    assert isinstance(first, Grid)
    values = net[0](split.images[:2]).detach()
    assert first.scale == pytest.approx((-float(values.abs().max()), float(values.abs().max())))
    only_one = only(chosen.parts)
    assert only_one.title == "1: 3 channels of 4×8, the first 1 shown"
    assert only_one.scale is not None
    assert only_one.scale[0] == 0.0
    with pytest.raises(ConfigError, match="no layer '3' laid out like the image"):
        activations(net, split.images, split.labels, CLASSES, layers=["3"])


def test_nearest_training_images() -> None:
    train, net = sides(), brighter_side()
    with attacked(net):
        panel = neighbours(net, train.images[:4], train.labels[:4], train, CLASSES, count=3)
    grid = only(panel.parts)
    assert panel.facts["share_of_answer"] == 1.0
    assert [[cell.caption for cell in row[1:] if cell] for row in grid.rows] == [
        [CLASSES[k % 2]] * 3 for k in range(4)
    ]
    first = grid.rows[0][1]  # the image itself is among the training images
    assert first is not None
    assert np.array_equal(first.pixels, (train.images[0, 0] * 255).round().byte().numpy())
    with pytest.raises(ConfigError, match="neighbours: it needs training images"):
        neighbours(net, train.images, train.labels, None, CLASSES)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_keeps_classes_apart(method: str) -> None:
    split, net = sides(), brighter_side()
    split.labels[0] = 1  # so that the model has one wrong
    with attacked(net):
        panel = embedding(net, split, CLASSES, method=method, images=40)
    (points,) = panel.parts
    assert isinstance(points, Points)
    assert int(points.wrong.sum()) == panel.facts["wrong"] == 1
    assert panel.facts["alike_right"] > 0.9
    assert panel.facts["alike_wrong"] == 0.0
    left = np.array([group == "left" for group in points.groups])
    assert abs(points.places[left].mean(0) - points.places[~left & ~points.wrong].mean(0)).max() > 0.5


def test_class_images_are_what_the_model_takes_for_the_class() -> None:
    train, net = sides(), brighter_side()
    with attacked(net):
        panel = class_image(net, train, CLASSES, steps=150, prior=0.01)
    grid, *lines = panel.parts
    assert isinstance(grid, Grid)
    assert panel.facts["sure"] == 2
    assert panel.facts["predicted"] == [0, 1]
    assert min(panel.facts["probability"]) > 0.99
    for k, cell in enumerate(grid.rows[0]):
        assert cell is not None
        bright = cell.pixels.astype(float)
        halves = bright[:, :4].mean(), bright[:, 4:].mean()
        assert halves[k] > 2 * halves[1 - k]
    for line in lines:
        assert isinstance(line, Lines)
        assert {name: (points[0][0], points[-1][0]) for name, points in line.lines.items()} == dict.fromkeys(
            CLASSES, (1.0, 150.0)
        )
    assert lines[0].lines["left"][-1][1] > 0.99
    with pytest.raises(ConfigError, match="class_image: it needs training images"):
        class_image(net, None, CLASSES)


def test_impostors_say_what_is_predicted_and_count_what_they_look_like() -> None:
    """A β so large that nothing can be both the source's likeness and taken for another: said as
    made, not as intended."""
    train, net = sides(), brighter_side()
    with attacked(net):
        panel = impostor(net, train, CLASSES, steps=200, beta=0.01)
        stiff = impostor(net, train, CLASSES, steps=200, beta=1e4)
    assert panel.facts["taken"] == 2
    assert len(panel.facts["distances"]) == 2
    grid, unmoved = only(panel.parts), only(stiff.parts)
    assert [[cell.caption.split()[0] for cell in row if cell] for row in grid.rows] == [
        ["its", "right"],
        ["left", "its"],
    ]
    assert stiff.facts["both"] == 0
    off = [cell for cell in (unmoved.rows[0][1], unmoved.rows[1][0]) if cell]
    assert all(cell.wrong for cell in off)
    source = grid.rows[0][0]
    assert source is not None
    own = train.images[train.labels == 0]
    typical = own[(own - own.mean(0)).square().sum((1, 2, 3)).argmin(), 0]
    assert np.array_equal(source.pixels, (typical * 255).round().byte().numpy())


def test_adversarial_examples_in_the_order_of_their_change() -> None:
    net, x = brighter_side(), torch.full((3, 1, 4, 8), 0.5)
    x[..., :4] += torch.tensor([0.02, 0.3, 0.1])[:, None, None, None]
    x_adv = x.clone()
    x_adv[..., 4:] += torch.tensor([0.03, 0.35, 0.15])[:, None, None, None]
    y = torch.zeros(3, dtype=torch.int64)
    with attacked(net):
        panel = adversarial_examples(net, (x, x_adv, y), CLASSES, images=2)
    grid = only(panel.parts)
    assert panel.facts["largest_change"] == pytest.approx([0.03, 0.15], abs=1e-6)
    assert [row[0].caption.split()[0] for row in grid.rows if row[0]] == ["left", "left"]
    assert [row[2].caption.split()[0] for row in grid.rows if row[2]] == ["right", "right"]
    assert [row[1].caption for row in grid.rows if row[1]] == ["change × 17", "change × 3"]
    with pytest.raises(ConfigError, match="the run has no adversarial images"):
        adversarial_examples(net, None, CLASSES)


class Cut(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = self.inner(x)
        return result


@pytest.mark.parametrize("view", [class_image, impostor])
def test_views_that_climb_need_a_gradient(view: Callable[..., object]) -> None:
    with (
        attacked(net := Cut(brighter_side())),
        pytest.raises(ConfigError, match="the model passes no gradient back to its input"),
    ):
        view(net, sides(), CLASSES)
