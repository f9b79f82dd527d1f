"""The engine against closed forms and against itself one radius at a time; what it refuses and what
it leaves as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attacking_plainly import attacked
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.attack_base import gradient, unwatched
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.robustness import measure

EXACT: list[Any] = ["fgsm", {"apgd": {"loss": "margin_targeted", "steps": 30}}]


def linear(classes: int, pixels: int = 16, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A linear model of images (1, 4, 4), and its weights."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    weights = torch.randn(classes, pixels, generator=generator)
    with torch.no_grad():
        model[1].weight.copy_(weights)
        model[1].bias.copy_(-0.5 * weights.sum(1))  # undecided at grey
    return model, weights


def inner_images(n: int, seed: int = 1) -> Tensor:
    """Far enough from black and white that the box plays no part."""
    return 0.4 + 0.2 * torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.breadth(2)
@pytest.mark.parametrize("classes", [2, 3, 5, 10])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_curve_of_a_linear_model_is_the_closed_form(classes: int, norm: str, dual: int) -> None:
    model, w = linear(classes)
    x = inner_images(150)
    with torch.no_grad():
        z = model(x)
    y = torch.where(
        torch.arange(150) % 5 == 0, (z.argmax(1) + 1) % classes, z.argmax(1)
    )  # every fifth is wrong unattacked
    gap = z.gather(1, y[:, None]) - z
    slope = torch.linalg.vector_norm(w[y][:, None] - w[None], dual, dim=2)
    margin = (gap / slope).scatter(1, y[:, None], torch.inf).amin(1)
    radii = [0.0, *(round(float(q), 4) for q in margin[margin > 0].quantile(torch.tensor([0.2, 0.5, 0.8])))]
    clear = ((margin[:, None] - torch.tensor(radii)).abs() > 1e-4).all(1)
    found = attacked(model, x, y, norm=norm, radii=radii, protocol=EXACT)
    for eps in radii:
        wanted = (margin > eps).numpy()
        assert ((found.minimal_radius > eps) == wanted)[clear.numpy()].all(), (norm, eps)
    assert found.facts["clean"]["value"] == pytest.approx(float((margin > 0).float().mean()))
    assert 0.3 < found.robust_accuracy(radii[2]).value < 0.5


@pytest.mark.breadth(1)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_all_radii_together_are_each_alone(
    digits_run: sl.Run, images: tuple[Tensor, Tensor], norm: str
) -> None:
    radii = {"linf": [0.05, 0.1, 0.15, 0.2], "l2": [0.3, 0.6, 0.9, 1.2], "l1": [1.0, 2.0, 3.0, 4.0]}[norm]
    model, (x, y) = digits_run.model(), images
    protocol = ["fgsm", {"apgd": {"steps": 25}}]
    together = attacked(model, x, y, norm=norm, radii=radii, protocol=protocol)
    for eps in radii:
        alone = attacked(model, x, y, norm=norm, radii=eps, protocol=protocol)
        differing = int(((together.minimal_radius > eps) != (alone.minimal_radius > eps)).sum())
        assert differing <= (6 if norm == "l1" else 2), (norm, eps)
        assert int((together.minimal_radius > eps).sum()) <= int((alone.minimal_radius > eps).sum()) + 1
    assert len(set(together.minimal_radius)) > 3


@pytest.mark.slow
def test_what_is_kept_holds_when_counted_again(digits_run: sl.Run, images: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = digits_run.model(), images
    found = attacked(model, x, y, radii="0:0.2:0.05", protocol="fast")
    rows = found.arrays["rows"]
    assert len(rows) > 30
    again = sl.verify(model, found.arrays["adversarials"], x[rows], y[rows], eps=found.minimal_radius[rows])
    assert again.broken.all()
    assert [finding.audit for finding in again.findings if finding.status == "sign"] == []
    guess = model(torch.from_numpy(found.arrays["adversarials"])).argmax(1).numpy()
    assert (guess == found.arrays["adversarial_prediction"]).all()
    assert (found.arrays["size"] <= found.minimal_radius[rows] * (1 + 1e-5) + 1e-6).all()


@pytest.mark.slow
def test_robust_accuracy_never_rises_and_begins_at_clean(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    found = attacked(digits_run.model(), *images, radii="0:0.3:0.05", protocol="fast")
    values = [point["robust"]["value"] for point in found.facts["curve"]]
    assert values == sorted(values, reverse=True)
    assert values[0] == found.facts["clean"]["value"]
    counts = sum(sum(point["newly_broken_by"].values()) for point in found.facts["curve"])
    assert counts == len(found.arrays["rows"])


def test_nothing_decided_is_computed_again(digits_run: sl.Run, images: tuple[Tensor, Tensor]) -> None:
    """Whoever survives the largest radius is attacked once; whoever is wrong unattacked, never."""
    model, (x, y) = digits_run.model(), images
    seen = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal seen
        seen += len(inputs[0]) if torch.is_grad_enabled() else 0

    handle = model.register_forward_hook(count)
    found = attacked(
        model, x, y, radii=[0.001, 0.002, 0.003, 0.004], protocol=[{"pgd": {"steps": 10, "restarts": 2}}]
    )
    handle.remove()
    survivors, broken = (
        int(np.isinf(found.minimal_radius).sum()),
        int((np.isfinite(found.minimal_radius) & (found.minimal_radius > 0)).sum()),
    )
    assert survivors > 70
    assert 20 * survivors <= seen <= 20 * (survivors + 4 * broken)


def test_an_attack_by_itself_is_shown_as_it_returns(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    model, (x, y) = digits_run.model(), images
    outside = "tests/plugins_of_tests.py:ten_times_too_far"
    found = attacked(
        model,
        x,
        y,
        radii=[0, 0.05, 0.1],
        protocol="none",
        individual_attacks=["fgsm", {"attack": outside, "radii": [0.05], "name": "too far"}],
    )
    fgsm, far = found.facts["alone"]
    clean = found.facts["clean"]["value"]
    assert [row["eps"] for row in fgsm["rows"]] == [0, 0.05, 0.1]
    assert fgsm["rows"][0]["accuracy"]["value"] == clean
    assert [row["outside"] for row in fgsm["rows"]] == [0, 0, 0]
    x_adv = registry.resolve("attacks", "fgsm")(
        model=model, x=x, y=y, ball=Ball("linf", 0.1), draws=Draws(0, torch.arange(len(x))), watch=unwatched
    )
    assert fgsm["rows"][2]["accuracy"]["value"] == pytest.approx(
        float((model(x_adv).argmax(1) == y).float().mean())
    )
    assert far["rows"][0]["outside"] == len(x)
    assert far["rows"][0]["accuracy"]["value"] < fgsm["rows"][1]["accuracy"]["value"]
    assert far["rows"][0]["valid"]["value"] == clean  # outside the ball nothing counts
    assert (found.minimal_radius[found.arrays["rows"]] <= 0.1).all()


def test_a_target_may_be_a_proxy_or_the_aim(digits_run: sl.Run, images: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = digits_run.model(), images
    proxy = attacked(model, x, y, radii=0.2, protocol=["pgd"], target=3)
    targeted_success = attacked(model, x, y, radii=0.2, protocol=["pgd"], target=3, success="target")
    rows = targeted_success.arrays["rows"]
    assert len(rows) > 5
    assert (targeted_success.arrays["adversarial_prediction"] == 3).all()
    of_target = (y == 3).numpy()
    assert np.isnan(targeted_success.minimal_radius[of_target]).all()
    assert not np.isnan(targeted_success.minimal_radius[~of_target]).any()
    assert targeted_success.robust_accuracy(0.2).value >= proxy.robust_accuracy(0.2).value


def test_a_random_model_is_averaged_and_told(images: tuple[Tensor, Tensor], digits_run: sl.Run) -> None:
    class Noisy(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x + 0.1 * torch.randn_like(x))
            return out

    model, (x, y) = Noisy(digits_run.model()), images
    found = attacked(model, x[:24], y[:24], radii=0.1, protocol=["fgsm"])
    again = attacked(model, x[:24], y[:24], radii=0.1, protocol=["fgsm"])
    assert found.facts["steering"]["passes"] == measure.RANDOM_PASSES
    assert (found.minimal_radius == again.minimal_radius).all()


def test_the_model_comes_back_as_it_was(images: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.Dropout(0.5))
    model[1].eval()
    model[2].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random_before = [m.training for m in model.modules()], torch.get_rng_state()
    attacked(model, *images, radii=0.05, protocol=["fgsm", "pgd"])
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random_before, torch.get_rng_state())


def test_a_part_without_gradient_is_passed_straight_through(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 8).round() / 8

    model, (x, y) = nn.Sequential(Rounded(), digits_run.model()), images
    asked = {"radii": 0.2, "protocol": [{"pgd": {"random_start": False}}]}
    blocked, through = attacked(model, x, y, **asked), attacked(model, x, y, bpda=["0"], **asked)
    assert blocked.robust_accuracy(0.2).value == blocked.facts["clean"]["value"]
    assert through.robust_accuracy(0.2).value < 0.5 * blocked.robust_accuracy(0.2).value
    with pytest.raises(ConfigError, match="no submodule 'round'"):
        attacked(model, x, y, bpda=["round"], **asked)


def test_transfer_without_a_surrogate_is_refused_at_once(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ConfigError, match="surrogate"):
        attacked(digits_run.model(), *images, radii=0.1, protocol=["transfer"])


def test_gradients_of_a_mean_are_those_of_each_image(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    model, (x, y) = digits_run.model(), images
    _, values, mean = gradient(model, x, nn.functional.cross_entropy, y)
    _, each, own = gradient(model, x, lambda z, t: nn.functional.cross_entropy(z, t, reduction="none"), y)
    assert torch.allclose(mean, own, atol=1e-6)
    assert torch.allclose(values, each.mean().expand(len(x)), atol=1e-6)


def test_what_an_attack_by_itself_breaks_does_not_change_the_others() -> None:
    """A radial model: nothing breaks from the clean centre, everything from beside it; half the
    images fall to FGSM."""

    class Radial(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            far = (x - 0.5).square().flatten(1).sum(1)
            return torch.stack([0.3 - far, torch.zeros_like(far)], 1)

    x = torch.full((2, 1, 4, 4), 0.5)
    x[1] += 0.05
    y = torch.zeros(2, dtype=torch.int64)
    asked: dict[str, Any] = {"radii": [0.05, 0.1, 0.2], "protocol": [{"pgd": {"steps": 10}}]}
    plain, beside = (
        attacked(Radial(), x, y, **asked),
        attacked(Radial(), x, y, individual_attacks=["fgsm"], **asked),
    )
    assert np.isfinite(plain.minimal_radius).all()
    assert (beside.minimal_radius <= plain.minimal_radius).all()


def test_a_radius_that_was_not_attacked_has_no_figure(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    found = attacked(digits_run.model(), *images, radii=["8/255"], protocol=["fgsm"])
    assert found.robust_accuracy(8 / 255).value == found.facts["curve"][0]["robust"]["value"]
    with pytest.raises(ConfigError, match="not attacked"):
        found.robust_accuracy(0.5)


def test_audits_look_at_the_model_that_was_attacked(
    digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 8).round() / 8

    model = nn.Sequential(Rounded(), digits_run.model())
    found = sl.attack(model, *images, radii=0.2, protocol=["fgsm", {"pgd": {"steps": 20}}], bpda=["0"])
    signs = {finding.audit for finding in found.findings if finding.status == "sign"}
    assert "gradient exists" not in signs


@pytest.mark.slow
def test_a_model_that_arrives_in_training_mode_is_told_and_gets_it_back(
    images: tuple[Tensor, Tensor],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).train()
    found = sl.attack(model, *images, radii=0.05, protocol=["fgsm", {"pgd": {"steps": 20}}])
    assert "evaluation mode" in {finding.audit for finding in found.findings if finding.status == "sign"}
    assert all(module.training for module in model.modules())
