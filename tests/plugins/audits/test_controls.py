"""Sound controls drawn at random (`controls.py`) give no serious sign, and no audit fails on them;
benchmarks/audits.py has 200 of them."""

from __future__ import annotations

import pytest
import torch
from controls import ARCHITECTURES, NORMS, PRECISIONS, alarms, control

FAST = 1
SEEDS = [*range(FAST), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(FAST, 27))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_sound_control_gives_no_serious_sign(seed: int) -> None:
    """Every architecture in every norm, the precisions in turn."""
    drawn = control(
        5000 + seed,
        architecture=list(ARCHITECTURES)[seed % 9],
        norm=NORMS[seed // 9],
        precision=PRECISIONS[seed % 4],
        shape=(1 + seed % 4, 6, 5 + seed % 3),
    )
    result = drawn.attacked()
    assert not alarms(result), drawn.name
    assert not [f for f in result.findings if "could not be carried out" in f.evidence], drawn.name


@pytest.mark.parametrize(
    "precision",
    [pytest.param(each, marks=pytest.mark.slow) for each in (torch.float16, torch.bfloat16, torch.float64)],
)
def test_every_precision_gets_the_audits_of_float32(precision: torch.dtype) -> None:
    plain, other = (
        control(7, architecture="mlp", shape=(1, 5, 5), norm="linf", classes=3, precision=each).attacked()
        for each in (torch.float32, precision)
    )
    checked = [{f.audit for f in found.findings if f.status != "not checked"} for found in (plain, other)]
    assert checked[0] == checked[1]
    assert not alarms(other)
