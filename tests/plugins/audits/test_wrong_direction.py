"""Attacks whose steps have the wrong sign, with and without a target, and those that step rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sound import images, mlp, only_audits, trained
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.evidence import Trace
from stresslens.core.types import Finding
from stresslens.robustness.audit import audit

PLUGIN = Path(__file__).parents[3] / "studies" / "plugins" / "wrong_sign_pgd.py"
OWN = """
import torch.nn.functional as F, torch
def descent(model, x, y, ball, draws):
    z = ball.sample(x, draws)
    for _ in range(10):
        p = z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(p), y), p)
        z = ball.project(z - 0.2 * ball.radius(x) * grad.sign(), x)
    return z
"""


@pytest.fixture(scope="module")
def scene() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    train, (x, y) = images(10)
    return trained(mlp(10), train), x[:200], y[:200]


def told(
    scene: tuple[nn.Module, Tensor, Tensor], attack: object, *, eps: float = 0.02, target: str | None = None
) -> Finding:
    model, x, y = scene
    with only_audits("wrong direction"):
        (found,) = sl.attack(model, x, y, radii=eps, protocol=[attack], target=target, audit=True).findings
    return found


@pytest.mark.parametrize("target", ["least_likely", "random"])
def test_steps_away_from_the_target_are_seen(scene: tuple[nn.Module, Tensor, Tensor], target: str) -> None:
    away = {f"{PLUGIN}:wrong_sign_pgd": {"step_size": 0.004}}
    found = told(scene, away, target=target)
    assert found.severity == "serious"
    assert "the target less likely" in found.evidence


def test_steps_down_the_loss_are_seen(scene: tuple[nn.Module, Tensor, Tensor], tmp_path: Path) -> None:
    """From a random start, without watch."""
    (tmp_path / "mine.py").write_text(OWN)
    assert told(scene, f"{tmp_path / 'mine.py'}:descent").severity == "serious"


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("attack", "target"),
    [
        ({f"{PLUGIN}:wrong_sign_pgd": {"step_size": 0.004, "away": False}}, "least_likely"),
        ({f"{PLUGIN}:wrong_sign_pgd": {"step_size": 0.004}}, None),
        ({"pgd": {"steps": 10}}, None),
        ({"pgd": {"steps": 10}}, "least_likely"),
        ("fgsm", None),
        ({"apgd": {"steps": 10}}, None),
    ],
)
def test_steps_in_the_right_direction_are_no_sign(
    scene: tuple[nn.Module, Tensor, Tensor], attack: object, target: str | None
) -> None:
    found = told(scene, attack, target=target)
    assert (found.status, found.n > 12) == ("no sign", True)


def trace(**changes: object) -> Trace:
    values = {"attack": "pgd", "options": {}, "eps": 0.1, "n": 100, "judged": 50, "backwards": 50}
    return Trace(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("some", "status"),
    [
        (trace(), "sign"),
        (trace(attack="as the lab did"), "sign"),
        (trace(backwards=30), "no sign"),
        (trace(judged=11, backwards=11), "not checked"),
        (trace(attack="square"), "not checked"),
        (trace(attack="fab"), "not checked"),
        (trace(passes=20), "not checked"),
        (trace(eps=0.0), "not checked"),
    ],
)
def test_from_when_on(some: Trace, status: str) -> None:
    (found,) = audit(trace=[some], only=["wrong direction"])
    assert found.status == status


def test_a_trace_of_an_earlier_version_is_read() -> None:
    values = trace().as_json()
    del values["judged"], values["backwards"]
    assert Trace.from_json(values).judged == 0
