"""Settings of an attack that cannot be, and the length of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stresslens.config import registry
from stresslens.config.schema import Robustness
from stresslens.config.threat_model import resolve_threat_model
from stresslens.core.errors import Problems
from stresslens.robustness import attack_run
from stresslens.robustness.autotune import step_of
from stresslens.robustness.measure import expected_gradients


def test_the_length_of_steps_is_known_where_it_is_fixed() -> None:
    lengths = {
        0.1: {"pgd": {"relative_step": 0.1}},
        0.01: {"pgd": {"step_size": 0.01}},
        2.5 / 20: {"pgd": {"steps": 20}},
        1.0: "fgsm",
        None: "apgd",
    }
    for wanted, value in lengths.items():
        found = step_of(registry.resolve("attacks", value), 1.0)
        assert found == pytest.approx(wanted) if wanted is not None else found is None


OWN = """
from torch import Tensor

def ours(x, *, rate: float = 0.5, steps: int = 7): return x

def named(x, *, step_size: float = 0.1, relative_step: float | None = None): return x

def step_length(*, eps, rate): return rate * eps if rate < 1 else None

def cost(*, steps, **others): return 100 * steps + len(others)

def may_be_flat(loss): return True
"""


def test_an_attack_of_ones_own_says_its_steps_and_its_cost(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    threat = resolve_threat_model(
        Robustness(
            radii=[0.1],
            protocol=[
                "own.py:ours",
                {"own.py:ours": {"rate": 2.0, "steps": 3}},
                {"own.py:named": {"step_size": 0.2}},
                {"own.py:named": {"relative_step": 0.5}},
                "own.py:named",
            ],
        ),
        base=tmp_path,
    )
    assert [step_of(each.bound, 0.1) for each in threat.attempts] == [0.05, None, 0.2, 0.05, None]
    assert [expected_gradients(each) for each in threat.attempts] == [701, 301, 1, 1, 1]
    assert registry.beside(threat.attempts[0].bound.function, "may_be_flat") is None  # takes a position
    assert threat.attempts[0].bound.answer_beside("may_be_flat") is None


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        ("fgsm", 1),
        ({"pgd": {"steps": 20, "restarts": 3}}, 60),
        ("apgd", 900),
        ({"apgd": {"loss": "dlr", "steps": 50}}, 50),
        ({"apgd": {"loss": "margin_targeted", "restarts": 2}}, 1800),
        ("fab", 900),
        ({"fab": {"steps": 10, "restarts": 2}}, 180),
        ({"square": {"queries": 300}}, 100),
        ("transfer", 1),
        ("noise", 1),
        ({"deepfool": {"steps": 30}}, 30),
    ],
    ids=str,
)
def test_the_cost_of_the_attacks(attack: Any, gradients: float) -> None:
    threat = resolve_threat_model(Robustness(radii=[0.1], protocol=[attack]), base=Path.cwd())
    assert expected_gradients(threat.attempts[0]) == gradients


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"radii": "0:0.1"}, "START:STOP:STEP"),
        ({"radii": [8]}, "did you mean 8/255"),
        ({"radii": -0.1}, "from 0 up"),
        ({"radii": [0.1], "protocol": ["pgf"]}, "did you mean 'pgd'"),
        ({"radii": [0.1], "protocol": [{"pgd": {"step": 1}}]}, "no option 'step'"),
        ({"radii": [0.1], "protocol": "none"}, "there is no attack"),
        ({"radii": [0.1], "success": "target"}, "needs a target"),
        ({"radii": [0.1], "individual_attacks": [{"attack": "pgd", "taget": 1}]}, "unknown key 'taget'"),
        ({"radii": [0.1], "individual_attacks": [{"attack": "pgd", "radii": "a"}]}, "radius 'a'"),
    ],
)
def test_a_threat_that_cannot_be_is_told(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Problems, match=said):
        resolve_threat_model(attack_run.robustness_config(asked), base=Path.cwd())
