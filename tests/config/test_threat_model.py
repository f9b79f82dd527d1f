"""Settings of an attack that cannot be, and the length of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stresslens.config import registry
from stresslens.config.threat_model import resolve_threat_model
from stresslens.core.errors import Problems
from stresslens.robustness import attack_run
from stresslens.robustness.autotune import step_of


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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"radii": "0:0.1"}, "START:STOP:STEP"),
        ({"radii": [8]}, "did you mean 8/255"),
        ({"radii": -0.1}, "from 0 up"),
        ({"radii": [0.1], "protocol": ["pgf"]}, "did you mean 'pgd'"),
        ({"radii": [0.1], "protocol": [{"pgd": {"step": 1}}]}, "no option 'step'"),
        ({"radii": [0.1], "protocol": "none"}, "nothing to do"),
        ({"radii": [0.1], "success": "target"}, "needs a target"),
        ({"radii": [0.1], "individual_attacks": [{"attack": "pgd", "taget": 1}]}, "unknown key 'taget'"),
        ({"radii": [0.1], "individual_attacks": [{"attack": "pgd", "radii": "a"}]}, "radius 'a'"),
    ],
)
def test_a_threat_that_cannot_be_is_told(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Problems, match=said):
        resolve_threat_model(attack_run.robustness_config(asked), base=Path.cwd())
