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
    ("text", "missing"),
    [
        ("ece=0.05", []),
        ("ece=0.04", ["b"]),
        ("ece.high=0.05", ["b"]),
        ("ece.high=0.01", ["a", "b"]),
        ("cross_entropy=2.5", []),
        ("cross_entropy.high=9", ["a"]),
    ],
)
def test_less_is_better_over_a_gate(text: str, missing: list[str]) -> None:
    finished = {
        "a": {"ece": Estimate(0.01, 0, 0.03, 50, ""), "cross_entropy": Estimate(2.0, 1, math.inf, 50, "")},
        "b": {"ece": Estimate(0.05, 0, 0.09, 50, ""), "cross_entropy": Estimate(2.0, 1, 3, 50, "")},
    }
    asked = gates.parsed([], [text])
    if not missing:
        gates.check(asked, finished)
        return
    with pytest.raises(GateNotMet, match="above") as caught:
        gates.check(asked, finished)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == missing


@pytest.mark.parametrize(
    ("under", "over", "message"),
    [
        ("ece=0.05", "", "--fail-under ece=0.05: of ece less is better; use --fail-over ece=0.05"),
        ("", "accuracy=0.9", "of accuracy more is better; use --fail-under accuracy=0.9"),
        ("", "f1@cat=0.9", "of f1@cat more is better; use --fail-under"),
        ("", "ecee=0.9", "did you mean 'ece'"),
        ("", "ece", "expected score=value, for example ece=0.05"),
        ("", "brier=-1", "a number from 0 up"),
        ("", "brier=nan", "a number from 0 up"),
        ("", "ece.low=0.1", "valid: "),
        ("f1@=0.1", "", "valid: "),
    ],
)
def test_gates_on_the_wrong_side(under: str, over: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gates.parsed([under] * bool(under), [over] * bool(over))


def test_balanced_accuracy_stands_beside_the_accuracy_of_unbalanced_classes() -> None:
    def scores(*sizes: int) -> dict[str, Estimate]:
        found = {
            "accuracy": Estimate(0.9, 0.8, 1, 100, ""),
            "balanced_accuracy": Estimate(0.5, 0, 1, 100, ""),
        }
        return found | {f"recall@{k}": Estimate(0.5, 0, 1, n, "") for k, n in enumerate(sizes)}

    finished = {"a": scores(90, 10, 0), "b": scores(50, 50)}
    met, missed = gates.parsed(["accuracy=0.8"]), gates.parsed(["accuracy=0.95"])
    (note,) = gates.check(met, finished)
    assert note.startswith(
        "a: accuracy 0.9000 meets its gate; its classes are unbalanced, and balanced_accuracy is"
    )
    assert gates.check(gates.parsed(["balanced_accuracy=0.1"]), finished) == []
    with pytest.raises(GateNotMet) as caught:
        gates.check(missed, finished)
    first, second = str(caught.value).splitlines()
    assert first.endswith("below 0.95; its classes are unbalanced, and balanced_accuracy is 0.5000")
    assert second.endswith("below 0.95")


def test_a_class_has_gates_of_its_own() -> None:
    finished = {"a": {"f1@cat": Estimate(0.7, 0.6, 0.8, 50, ""), "f1@a=b": Estimate(0.9, 0.8, 1, 50, "")}}
    gates.check(gates.parsed(["f1@cat=0.6", "f1@a=b=0.9"]), finished)
    with pytest.raises(GateNotMet, match=r"f1@cat 0\.7000 is below 0\.8"):
        gates.check(gates.parsed(["f1@cat=0.8"]), finished)
    with pytest.raises(ConfigError, match="a has no such score; did you mean 'f1@cat'"):
        gates.check(gates.parsed(["f1@cot=0.8"]), finished)


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
