from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stresslens.comparison import costs
from stresslens.comparison.costs import ratio_of
from stresslens.core.layer_table import Layer, LayerTable
from stresslens.evaluation.record import RunRecord, Scoring, TrainingRecord


def record(seconds: float, epochs: int = 10, parameters: int = 100, **training: int) -> RunRecord:
    trained = TrainingRecord(seconds=seconds, epochs=epochs, memory_of="tensors", **training)
    return RunRecord(status="finished", training=trained, layers=layers(parameters))


def layers(parameters: int) -> LayerTable:
    return LayerTable((), parameters, parameters, 0, 0, 0)


def of(*records: RunRecord) -> dict[str, RunRecord]:
    return {f"seed-{k}": each for k, each in enumerate(records)}


def test_ratio_is_the_geometric_mean_with_t_on_the_logarithms() -> None:
    a, b = np.array([1.0, 1.1, 0.9, 1.05]), np.array([8.0, 9.0, 7.9, 8.4])
    found = ratio_of("c", "a", "b", "seconds per epoch", np.log(b / a))
    expected = stats.ttest_rel(np.log(b), np.log(a))
    assert found.ratio.value == pytest.approx(stats.gmean(b / a))
    low, high = expected.confidence_interval()
    assert (found.ratio.low, found.ratio.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.ratio.unit, found.ratio.n) == ("seeds", 4)


def test_either_order_tells_the_same() -> None:
    logs = np.log([8.0, 9.0, 7.5])
    forth, back = (
        ratio_of("c", "a", "b", "seconds to the stop", logs),
        ratio_of("c", "b", "a", "seconds to the stop", -logs),
    )
    assert forth.ratio.value == pytest.approx(1 / back.ratio.value)
    assert forth.verdict.partition(": ")[2] == back.verdict.partition(": ")[2]
    assert "b takes 8.14 times as long to the stop as a (6.47 to 10.2; 3 seeds)" in forth.verdict


def test_every_measure_and_its_words() -> None:
    a = of(*(record(s, peak_memory=100) for s in (1.0, 1.02, 0.98)))
    b = of(*(record(s, epochs=5, parameters=250, peak_memory=300) for s in (8.0, 8.1, 8.2)))
    found = {each.measure: each for each in costs.compare_costs({"a": a, "b": b}, [("c", "a", "b")])}
    assert found["seconds per epoch"].ratio.value == pytest.approx(16.2, rel=0.01)
    assert (
        found["peak memory"].verdict
        == "b takes 3 times as much memory as a, 0.0003 MB against 0.0001 MB (3 to 3; 3 seeds)"
    )
    assert found["parameters"].verdict == "b has 2.5 times as many parameters as a, 250 against 100"
    assert all(each.real for each in found.values())
    assert found["parameters"].ratio.value == 2.5
    assert found["parameters"].as_cost().as_json()["ratio"]["low"] is None
    assert found["parameters"].as_cost().p_holm is None


def test_noise_is_not_distinguishable_and_one_seed_has_no_interval() -> None:
    a, b = of(record(1.0), record(2.0), record(3.0)), of(record(2.0), record(1.5), record(3.1))
    slower, stop, size = costs.compare_costs({"a": a, "b": b}, [("c", "a", "b")])
    assert not slower.real
    assert slower.verdict.startswith(
        "a and b are not distinguishable in seconds per epoch: b takes 1.16 times"
    )
    assert size.verdict == "a and b have equally many parameters"
    assert not size.real
    slower = costs.compare_costs({"a": of(record(1.0)), "b": of(record(2.0))}, [("c", "a", "b")])[0]
    assert slower.verdict == (
        "b takes 2 times as long per epoch as a, 200 ms against 100 ms (one seed, so without an interval)"
    )
    assert not slower.real
    assert stop.measure == "seconds to the stop"


def test_equal_costs_have_no_winner() -> None:
    """One seed, several seeds, and counts that differ in the fifth digit."""
    a, b = [record(1.0), record(1.01), record(0.99)], [record(1.001), record(1.0), record(1.0)]
    one_seed = costs.compare_costs({"a": of(a[0]), "b": of(b[0])}, [("c", "a", "b")])[0]
    assert one_seed.verdict == "a takes as long per epoch as b (one seed, so without an interval)"
    several = costs.compare_costs({"a": of(*a), "b": of(*b)}, [("c", "a", "b")])[0]
    assert several.verdict.startswith(
        "a and b are not distinguishable in seconds per epoch: no difference was seen (0.976 to 1.03"
    )
    sizes = {"a": of(record(1.0, parameters=20_000)), "b": of(record(1.0, parameters=20_006))}
    assert costs.compare_costs(sizes, [("c", "a", "b")])[-1].verdict == (
        "b has 1.0003 times as many parameters as a, 20,006 against 20,000"
    )


def test_a_ratio_of_a_thousand_is_never_called_not_distinguishable() -> None:
    a, b = of(record(1.0), record(1.1)), of(record(500.0), record(2420.0))
    slower = costs.compare_costs({"a": a, "b": b}, [("c", "a", "b")])[0]
    assert not slower.real
    assert slower.verdict == (
        "b takes 1,049 times as long per epoch as a, 2 min 26 s against 105 ms in the mean of 2 seeds, "
        "too few seeds to test"
    )
    others = {f"x{k}": of(record(1.0), record(2.0), record(3.0 + k)) for k in range(240)}
    variants = {
        "a": of(record(1.0), record(1.5), record(0.8)),
        "b": of(record(900), record(2000), record(850)),
    }
    contrasts = [("c", "a", "b"), *(("c", "a", name) for name in others)]
    slower = costs.compare_costs(variants | others, contrasts)[0]
    assert not slower.real
    assert "not distinguishable" not in slower.verdict
    assert "too few seeds to test this many ratios, p after Holm's correction 0." in slower.verdict


def test_the_memory_of_a_process_is_not_compared() -> None:
    a, b = of(record(1.0, peak_memory=100)), of(record(1.0, peak_memory=300))
    for each in (*a.values(), *b.values()):
        each.training.memory_of = "process"
    assert "peak memory" not in {
        each.measure for each in costs.compare_costs({"a": a, "b": b}, [("c", "a", "b")])
    }


def test_multiply_adds_are_compared_where_they_are_counted_alike() -> None:
    def counted(multiply_adds: int, with_attention: bool) -> dict[str, RunRecord]:
        row = Layer("0", "Linear", "linear", (1,), 1, 1, 1, multiply_adds)
        table = LayerTable((row,), 1, 1, 0, 0, 0, with_attention)
        return of(RunRecord(status="finished", training=TrainingRecord(), layers=table))

    old, new, larger = counted(90, False), counted(100, True), counted(200, True)
    found = costs.compare_costs({"old": old, "new": new}, [("c", "old", "new")])
    assert [each.measure for each in found] == ["parameters"]
    found = costs.compare_costs({"new": new, "larger": larger}, [("c", "new", "larger")])
    assert (
        found[-1].verdict == "larger has 2 times as many multiply-adds for an image as new, 200 against 100"
    )


def test_the_same_memory_is_no_difference() -> None:
    same = of(*(record(1.0, peak_memory=100) for _ in range(3)))
    memory = costs.compare_costs({"a": same, "b": same}, [("c", "a", "b")])[2]
    assert (
        memory.verdict
        == "a and b are not distinguishable in peak memory: no difference was seen (1 to 1; 3 seeds)"
    )
    assert not memory.real


def test_holm_over_the_measured_alone_and_each_pair_once() -> None:
    random = np.random.default_rng(0)
    records = {name: of(*(record(s) for s in random.uniform(1, 2, 4))) for name in "abc"}
    found = costs.compare_costs(records, [("c", "a", "b"), ("c", "a", "c"), ("again", "a", "b")])
    timed = {(r.a, r.b, r.measure): r for r in found if r.measure != "parameters"}
    assert len(timed) == 4
    least = min(timed.values(), key=lambda r: r.p)
    assert least.p_holm == pytest.approx(min(1, 4 * least.p))


def test_what_older_records_lack_is_left_out() -> None:
    old = of(RunRecord(status="finished", layers=layers(3)))
    assert [r.measure for r in costs.compare_costs({"a": old, "b": old}, [("c", "a", "b")])] == ["parameters"]
    assert costs.compare_costs({"a": {}, "b": {}}, [("c", "a", "b"), ("c", "a", "x")]) == []


def test_scoring_is_compared_where_it_takes_long_enough_to_be_timed() -> None:
    slow, slower, short = (
        record(1.0).model_copy(update={"scoring": {"test": Scoring(seconds=s, images=9)}})
        for s in (0.5, 2.0, 0.05)
    )
    found = {r.measure: r for r in costs.compare_costs({"a": of(slow), "b": of(slower)}, [("c", "a", "b")])}
    said = (
        "b takes 4 times as long to score the test images as a, 2.0 s against 500 ms "
        "(one seed, so without an interval)"
    )
    assert found["seconds to score"].verdict == said
    assert "seconds to score" not in {
        r.measure for r in costs.compare_costs({"a": of(slow), "b": of(short)}, [("c", "a", "b")])
    }
