"""What every audit keeps to; tests/config/test_registry.py checks the signatures,
tests/plugins/audits/ that each sees what it is for."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import Answering
from torch import nn

from stresslens.config import registry
from stresslens.core.evidence import CLEAN, Curve, Row
from stresslens.robustness.audit import NEEDS, ExtraAttackProbe, audit, needs_of

every = pytest.mark.parametrize("name", registry.names("audits"))
TESTS = Path(__file__).parents[1] / "plugins" / "audits"


@pytest.fixture(scope="module")
def given() -> dict[str, object]:
    """A little of everything that an audit may need."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.rand(40, 1, 4, 4)
    with torch.no_grad():
        y = model(x).argmax(1)
    probe = ExtraAttackProbe(model, x, y, "linf", (0.05, 0.2), ("fgsm", {"pgd": {"steps": 5}}))
    broken, trace = probe.broken(probe.protocol, 0.05)
    smallest = torch.where(torch.from_numpy(broken), 0.05, torch.inf).double().numpy()
    table = [
        Row("model", CLEAN, 0.0, 1.0, 40, "linf"),
        Row("model", "pgd", 0.05, 1 - float(broken.mean()), 40, "linf", 5, 0.05),
    ]
    curve = Curve("linf", (0.05, 0.2), smallest, broken.astype("int64") - 1, ("fgsm", "pgd"), 40)
    return {"table": table, "curve": curve, "trace": trace, "model": model, "images": (x, y), "probe": probe}


@every
def test_it_answers_with_figures_in_its_own_name(name: str, given: dict[str, object]) -> None:
    (found,) = audit(**given, only=[name])  # type: ignore[arg-type]
    assert found.audit == name.replace("_", " ")
    assert "could not be carried out" not in found.evidence
    assert found.evidence
    assert (found.status == "sign") == (found.severity != "none")
    assert (found.status == "sign") <= bool(found.remedy)
    assert found.n > 0 or found.status == "not checked"


@pytest.mark.breadth(20)
@every
def test_a_model_without_a_gradient_is_no_error(name: str, given: dict[str, Any]) -> None:
    model, (x, y) = Answering(given["model"]), given["images"]
    probe = ExtraAttackProbe(model, x, y, "linf", (0.05, 0.2), ({"square": {"queries": 5}},))
    (found,) = audit(**{**given, "model": model, "probe": probe}, only=[name])
    assert "could not be carried out" not in found.evidence
    if name in ("gradient_exists", "gradient_is_slope", "reference_wins"):
        assert (found.status, found.evidence) == (
            "not checked",
            "the model has no gradient: it is a server",
        )


@pytest.mark.breadth(20)
@every
def test_without_what_it_needs_it_says_so(name: str, given: dict[str, object]) -> None:
    needs = needs_of(name)
    assert needs
    for missing in needs:
        (found,) = audit(**{**given, missing: None}, only=[name])  # type: ignore[arg-type]
        assert found.status == "not checked"
        assert NEEDS[missing] in found.evidence


@pytest.mark.breadth(20)
@every
def test_empty_tables_and_traces_are_no_error(name: str, given: dict[str, object]) -> None:
    bare = {
        "table": [],
        "trace": [],
        "probe": ExtraAttackProbe(given["model"], *given["images"], "linf", (), ()),
    }  # type: ignore[arg-type, misc]
    (found,) = audit(**{**given, **bare}, only=[name])  # type: ignore[arg-type]
    assert "could not be carried out" not in found.evidence


@pytest.mark.breadth(20)
@every
def test_it_leaves_everything_as_it_was(name: str, given: dict[str, object]) -> None:
    model, (x, y) = given["model"], given["images"]  # type: ignore[misc]
    assert isinstance(model, nn.Module)
    model.train()
    before, weights = (x.clone(), y.clone(), torch.get_rng_state()), [p.clone() for p in model.parameters()]
    audit(**given, only=[name])  # type: ignore[arg-type]
    assert model.training
    assert all(
        p.requires_grad and p.grad is None and torch.equal(p, w) for p, w in zip(model.parameters(), weights)
    )
    for now, then in zip((x, y, torch.get_rng_state()), before):
        assert torch.equal(now, then)
    model.eval()


@every
def test_its_docstring_says_from_when_on(name: str) -> None:
    text = inspect.getdoc(registry.plugin("audits", name)) or ""
    assert re.search(r"\b[Ss]ign\b|[Ss]erious|[Mm]inor", text), text


def test_some_test_expects_each() -> None:
    """Each audit is named, as a string, by a test in which it must see something."""
    strings = {
        node.value
        for file in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {name.replace("_", " ") for name in registry.names("audits")} <= strings
