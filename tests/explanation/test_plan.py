"""How many images are explained, and which maps are checked, follows from what a pass costs; so do
the window and the steps of explainers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.cli.terminal import print_forecast
from stresslens.config import registry
from stresslens.config.schema import Explain
from stresslens.core import progress
from stresslens.core.layer_table import multiply_adds_of
from stresslens.core.pass_memory import MEASURED
from stresslens.explanation import plan
from stresslens.explanation.plan import ExplanationPlan, planned
from stresslens.plugins.explainers import integrated_gradients as ig
from stresslens.plugins.explainers.occlusion import occlusion

USUAL = ["occlusion", "integrated_gradients", "gradcam"]


class Counted(nn.Module):
    """A net of 16 · H · W multiply-adds that notes how many images pass at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.passed = nn.Conv2d(1, 16, 1, bias=False), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passed += len(x)
        return self.conv(x).sigmoid().mean((2, 3))


class Pooled(nn.Module):
    """A net that is quick on large images."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 4).flatten(1).square()


def plan_at(
    shape: tuple[int, int, int],
    work: float,
    monkeypatch: pytest.MonkeyPatch,
    names: list[Any] | None = None,
    **asked: Any,
) -> ExplanationPlan:
    """The plan where a pass is `work` of all work that a default explanation may do."""
    monkeypatch.setattr(plan, "multiply_adds_of", lambda model, shape: work * plan.WORK)
    config = Explain(names or USUAL, **asked)
    return planned(Counted(), shape, [registry.resolve("explainers", n) for n in config.explainers], config)


@pytest.mark.parametrize("side", [8, 28])
def test_small_nets_get_ten_images_and_all_checks(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan_at((1, side, side), 1e-6, monkeypatch)
    assert (found.images, found.checked) == (10, (True, True, True))


def test_the_cheapest_explainer_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_at((3, 224, 224), 1e-9, monkeypatch).order == [2, 1, 0]


@pytest.mark.parametrize(
    ("work", "images", "checked"),
    [
        (1e-5, 10, (True, True, True)),
        (5e-5, 10, (False, True, True)),
        (1e-4, 10, (False, False, True)),
        (2e-4, 6, (False, False, True)),
        (1 / 1700, 2, (False, False, True)),
        (1e-2, 2, (False, False, False)),
    ],
)
def test_larger_nets_get_fewer_checks_and_images(
    work: float, images: int, checked: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan_at((3, 224, 224), work, monkeypatch)
    assert (found.images, found.checked) == (images, checked)


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan_at((3, 224, 224), 1.0, monkeypatch, images=7, check=True)
    assert (found.images, found.checked) == (7, (True, True, True))
    assert plan_at((3, 224, 224), 1e-9, monkeypatch, check=False).checked == (False, False, False)
    assert plan_at((3, 224, 224), 1.0, monkeypatch, choose=[4, 5, 6]).images == 3


def test_the_count_of_passes_is_what_occlusion_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planned passes without checks are those that are computed, but for the clean images."""
    monkeypatch.setattr("stresslens.plugins.explainers.occlusion.quick", lambda model, x: model)
    net, x = Counted(), torch.rand(3, 1, 33, 44)
    config = Explain(["occlusion"], images=3, check=False)
    found = planned(net, (1, 33, 44), [registry.resolve("explainers", "occlusion")], config)
    net.passed = 0
    occlusion(net, x, torch.zeros(3, dtype=torch.int64), None)
    assert found.passes == 3 * 11 * 15
    assert net.passed == found.passes + 3 + MEASURED


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [((8, 8), 5, 1), ((28, 28), 5, 1), ((32, 32), 5, 1), ((96, 96), 17, 6), ((224, 224), 40, 14)],
)
def test_the_window_follows_from_the_size_of_the_image(
    shape: tuple[int, int], size: int, stride: int
) -> None:
    net, y = Pooled(), torch.zeros(1, dtype=torch.int64)
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    expected = occlusion(net, x, y, None, size=size, stride=stride).values
    assert torch.equal(occlusion(net, x, y, None).values, expected)


@pytest.mark.parametrize("credit", ["centre", "covered"])
@pytest.mark.parametrize("shape", [(4, 4), (33, 300), (40, 7), (64, 64)])
@pytest.mark.parametrize("given", [{}, {"size": 3}, {"stride": 9}], ids=str)
def test_the_default_window_suits_every_image(
    shape: tuple[int, int], credit: str, given: dict[str, int]
) -> None:
    if given.get("stride", 1) > min(shape):
        pytest.skip("a stride larger than the image")
    x = torch.rand(1, 1, *shape)
    maps = occlusion(Pooled(), x, torch.zeros(1, dtype=torch.int64), None, credit=credit, **given)  # type: ignore[arg-type]
    assert maps.values.shape == x.shape[:1] + x.shape[2:]


def test_integrated_gradients_takes_fewer_steps_in_a_large_net(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Counted(), torch.rand(1, 1, 8, 8)
    monkeypatch.setattr(ig, "WITHIN", 0.0)  # no map is near enough
    monkeypatch.setattr(ig, "WORK", 3 * 64 * multiply_adds_of(net, (1, 8, 8)))
    net.passed = 0
    maps = ig.integrated_gradients(net, x, torch.zeros(1, dtype=torch.int64), None)
    assert "more than 0.1 % off" in maps.notes[0]
    assert net.passed in range(2 + 32 + 64, 2 + 32 + 64 + 5)


def test_long_work_is_told_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    net, told = Counted(), list[tuple[str, float, str]]()
    config = Explain(USUAL, images=4)
    x = torch.rand(4, 1, 8, 8)
    explainers = [registry.resolve("explainers", name) for name in USUAL]
    with progress.listening(lambda *each: None, lambda *each: told.append(each)):
        planned(net, (1, 8, 8), explainers, config).foretell(net, x, config)
        assert not told  # short
        monkeypatch.setattr("stresslens.core.pass_time.SHORT", 0)
        planned(net, (1, 8, 8), explainers, config).foretell(net, x, config)
    ((what, seconds, quicker),) = told
    assert what == "explaining 4 images"
    assert seconds > 0
    assert quicker == "--no-check, --images 2, --explainer gradcam alone"


def test_the_terminal_shows_the_forecast_of_long_work_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_forecast("explaining 2 images", 5, "--no-check")
    print_forecast("explaining 2 images", 90, "--no-check")
    shown = "explaining 2 images takes about 1 min 30 s; quicker: --no-check\n"
    assert capsys.readouterr().err == shown
