"""Gates on a score or on the lower end of its interval."""

from __future__ import annotations

import math

import pytest

from stresslens.cli import gates
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.core.types import Estimate

FINISHED = {
    "a/seed-0": {"accuracy": Estimate(0.97, 0.95, 0.98, 360, "Wilson")},
    "b/seed-0": {"accuracy": Estimate(0.99, 0.97, 0.995, 360, "Wilson")},
}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("accuracy=0.97", []),
        ("accuracy=0.98", ["a/seed-0"]),
        ("accuracy.low=0.95", []),
        ("accuracy.low=0.96", ["a/seed-0"]),
        ("accuracy.low=0.98", ["a/seed-0", "b/seed-0"]),
    ],
)
def test_a_gate_names_the_runs_that_miss_it(text: str, missing: list[str]) -> None:
    if not missing:
        gates.check(gates.parsed([text]), FINISHED)
        return
    with pytest.raises(GateNotMet) as caught:
        gates.check(gates.parsed([text]), FINISHED)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == missing
    assert caught.value.exit_code == 5


def test_the_lower_end_is_told_with_its_n() -> None:
    with pytest.raises(
        GateNotMet,
        match=r"the lower end of accuracy is 0.9500 \(0.9700, 95 % interval, n = 360\), below 0.96",
    ):
        gates.check(gates.parsed(["accuracy.low=0.96"]), FINISHED)


def test_a_score_that_is_not_known_meets_no_gate() -> None:
    unknown = {"a": {"auroc": Estimate(math.nan, 0.0, 1.0, 0, "DeLong")}}
    with pytest.raises(GateNotMet):
        gates.check(gates.parsed(["auroc=0"]), unknown)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy=0.9", "did you mean 'accuracy'"),
        ("accuracy", "expected score=value"),
        ("accuracy=97", "from 0 to 1"),
        ("accuracy=nan", "from 0 to 1"),
    ],
)
def test_a_gate_that_is_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gates.parsed([text])


def test_a_score_the_run_does_not_have() -> None:
    with pytest.raises(ConfigError, match="a/seed-0 has no such score; it has accuracy"):
        gates.check(gates.parsed(["top5=0.9"]), FINISHED)


@pytest.mark.parametrize(
    "text",
    [
        "robust@0.1=60",
        "robust@0.1=nan",
        "robust@0.1=-0.1",
        "robust@nan=0.5",
        "robust@-1=0.5",
        "robust@0.1",
        "robust=0.5",
    ],
)
def test_robust_gates_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fail-under"):
        gates.parsed_robust([text])


def test_robust_gates_stand_at_radii_that_were_attacked() -> None:
    gates.check_attacked(gates.parsed_robust(["robust@8/255=0.4"]), [0.0, round(8 / 255, 9)])
    with pytest.raises(ConfigError, match=r"robust@0\.2: that radius was not attacked"):
        gates.check_attacked(gates.parsed_robust(["robust@0.2=0.4"]), [0.1])
