"""Audits of a model do not take rounding for a fault, in any precision, and still see the fault; and
they say in which mode the model was given."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sound import only_audits, signs
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.attack_base import BatchedModel, gradient
from stresslens.core.evidence import CLEAN, Row
from stresslens.core.types import Finding
from stresslens.robustness.audit import audit

LOWER = (torch.float16, torch.bfloat16)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def net(precision: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)
    ).to(precision)


class Around(nn.Module):
    """A net on changed images."""

    def __init__(self, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.net = net(precision)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.change(x))

    def change(self, x: Tensor) -> Tensor:
        return x


class Reordered(Around):
    """Adds a large sum and takes it away again; for a single image in another order, as kernels do."""

    def forward(self, x: Tensor) -> Tensor:
        terms = list((100 * x.flatten(1)).T)
        rounding = sum(terms) - sum(terms if len(x) > 1 else terms[::-1])
        return self.net(x) + rounding[:, None] * torch.tensor([1.0, -1.0, 1.0], dtype=x.dtype)


class OfItsBatch(Around):
    def change(self, x: Tensor) -> Tensor:
        return x - x.mean() + 0.5


class Rounded(Around):
    def change(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


class Cut(Around):
    def change(self, x: Tensor) -> Tensor:
        return x.detach()


class WrongWay(Around):
    def change(self, x: Tensor) -> Tensor:
        return 2 * x.detach() - x


class Softmax(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class Constant(Around):
    """Cannot be computed in another precision."""

    def change(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).to(self.net[0].weight.dtype) + self.net[0].weight.new_zeros(1)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        raise RuntimeError("fixed")


def found(model: nn.Module, x: Tensor, *names: str) -> dict[str, Finding]:
    y = torch.zeros(len(x), dtype=torch.int64)
    return {f.audit: f for f in audit(model=model.eval(), images=(x, y), only=names)}


def test_rounding_in_another_batch_is_no_sign(x: Tensor) -> None:
    (finding,) = found(Reordered(), x, "neighbours").values()
    assert finding.status == "no sign"
    assert "rounding" in finding.evidence
    assert "neighbours" in signs([*found(OfItsBatch(), x, "neighbours").values()], "serious")


@pytest.mark.parametrize("precision", LOWER)
def test_no_audit_of_a_model_takes_low_precision_for_a_fault(x: Tensor, precision: torch.dtype) -> None:
    given = {f.audit: f for f in audit(model=net(precision).eval(), images=(x, torch.zeros(32).long()))}
    assert not signs([*given.values()])
    assert not [f for f in given.values() if "could not be carried out" in f.evidence]
    names = ("gradient exists", "gradient is slope", "staircase", "neighbours", "remembers", "probabilities")
    assert {given[name].status for name in names} == {"no sign"}


@pytest.mark.parametrize("precision", [*LOWER, torch.float64])
@pytest.mark.parametrize(
    ("kind", "audit_"),
    [
        (OfItsBatch, "neighbours"),
        (Rounded, "staircase"),
        (Cut, "gradient exists"),
        (WrongWay, "gradient is slope"),
        (Softmax, "probabilities"),
    ],
)
def test_a_fault_is_seen_in_every_precision(
    x: Tensor, kind: type[Around], audit_: str, precision: torch.dtype
) -> None:
    assert found(kind(precision), x, audit_)[audit_].severity == "serious"


@pytest.mark.parametrize("precision", LOWER)
def test_what_the_precision_hides_is_not_checked(x: Tensor, precision: torch.dtype) -> None:
    for finding in found(Constant(precision), x, "staircase", "gradient is slope").values():
        assert (finding.status, "precision" in finding.evidence) == ("not checked", True)


def test_a_gradient_does_not_underflow_in_float16(x: Tensor) -> None:
    """Cross-entropy of a sure model has a gradient below the smallest number of float16."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[1].weight.mul_(0.1)
        model[1].bias.copy_(torch.tensor([25.0, 0.0, -3.0]))
    y = torch.zeros(len(x), dtype=torch.int64)
    _, _, exact = gradient(BatchedModel(model), x, loss, y)
    _, _, half = gradient(BatchedModel(model.half()), x, loss, y)
    assert exact.abs().amax() < 6e-8
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, rtol=0.05, atol=float(exact.abs().amax()) * 0.01)


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_the_mode_in_which_a_model_was_given_is_told(x: Tensor, dropout: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 3)).train()
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
    model[1].train()
    with only_audits("evaluation mode"):
        result = sl.attack(model, x, y, radii=[0.01], protocol=["fgsm"])
    (finding,) = result.findings
    assert finding.status == ("sign" if dropout else "no sign")
    assert "1 of 4 parts" in finding.evidence
    assert "training mode" in finding.evidence
    assert [module.training for module in model] == [False, True, False]
    assert result.result.clean.value == 1  # measured in evaluation mode


def test_a_table_of_our_own_is_judged_by_its_classes() -> None:
    """Three images in four are of one class, which may stay correct where all can be made grey."""

    def rows(**known: float) -> list[Row]:
        return [
            Row("m", "none" if eps == 0 else "pgd", eps, accuracy, 160, "linf", **known)  # type: ignore[arg-type]
            for eps, accuracy in ((0.0, 1.0), (0.1, 0.75), (0.5, 0.75))
        ]

    assert CLEAN == "none"
    severity = {
        key: audit(table=rows(**known), only=["barely moves"])[0].severity
        for key, known in {
            "not known": {},
            "most": {"largest_class": 0.75},
            "few": {"largest_class": 0.5},
        }.items()
    }
    assert severity == {"not known": "serious", "most": "minor", "few": "serious"}


@pytest.mark.slow
def test_a_linear_model_that_is_solved_exactly_gives_no_serious_sign() -> None:
    numbers = torch.Generator().manual_seed(0)
    dark = 0.3 * torch.rand(90, 1, 4, 4, generator=numbers)
    bright = 0.92 + 0.08 * torch.rand(30, 1, 4, 4, generator=numbers)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(16), torch.ones(16)]))
        model[1].bias.copy_(torch.tensor([0.0, -0.9 * 16]))
    result = sl.attack(
        model.eval(), torch.cat([dark, bright]), torch.arange(120) // 90, radii=[0.1, 0.3, 0.5]
    )
    assert [result.robust_accuracy(eps).value for eps in (0.1, 0.3, 0.5)] == [0.75] * 3
    assert not signs(result.findings, "serious")
