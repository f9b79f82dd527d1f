"""What attacks that count queries leave: perturbations and robust accuracy by queries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.metrics.intervals import order_median
from stresslens.robustness.query_curves import QueryLog, query_levels, query_marks
from stresslens.robustness.result import AttackResult
from stresslens.robustness.robust_curves import query_tables

sys.path.insert(0, str(Path(__file__).parent))
from attacking_plainly import attacked


class Threshold(nn.Module):
    """Class 1 from a mean of 0.5 on."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def result(**asked: object) -> AttackResult:
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1).mean(1) >= 0.5).long()
    y[3] = 1 - y[3]
    return attacked(Threshold(), x, y, norm="l2", radii=[0.1, 0.5], **asked)


@settings(deadline=None)
@given(data=st.data(), n=st.integers(1, 4))
def test_a_log_is_a_running_minimum(data: st.DataObject, n: int) -> None:
    """Against a list of the queries of each image, in passes that hold an image several times."""
    marks, seen, log = (2, 5, 9), [[] for _ in range(n)], QueryLog((2, 5, 9), n, torch.device("cpu"))  # type: ignore[var-annotated]
    for _ in range(data.draw(st.integers(0, 5))):
        rows = data.draw(st.lists(st.integers(0, n - 1), max_size=6))
        sizes = data.draw(
            st.lists(st.sampled_from([0.5, 1.0, 2.0, np.inf]), min_size=len(rows), max_size=len(rows))
        )
        log.note(torch.tensor(rows, dtype=torch.int64), torch.tensor(sizes))
        for row, size in zip(rows, sizes):
            seen[row].append(size)
    expected = [
        [min([*each[:mark], np.inf]) for mark in marks[:-1]] + [min([*each, np.inf])] for each in seen
    ]
    assert log.smallest().tolist() == expected
    assert log.counts(torch.full((n,), 1.0)) == {
        mark: sum(row[k] <= 1.0 for row in expected) for k, mark in enumerate(marks)
    }


def test_marks_follow_the_budget() -> None:
    def marks(attack: object) -> tuple[int, ...]:
        return query_marks(registry.resolve("attacks", attack))

    assert marks({"square": {"queries": 300}}) == (10, 20, 50, 100, 200, 300)
    assert marks("hop_skip_jump") == (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    assert marks({"boundary": {"queries": 1}}) == (1,)
    assert marks("pgd") == ()


def test_levels_by_hand() -> None:
    attack = registry.resolve("attacks", {"boundary": {"queries": 20}})
    sizes = np.array([[np.inf, 0.2], [0.3, 0.1], [np.inf, np.inf], [0.0, 0.0]], dtype=np.float32)
    early, late = query_levels(attack, sizes, np.array([True, True, True, False]), 0.2)
    assert (early.queries, late.queries) == (10, 20)
    assert (early.robust.value, early.robust.n) == (0.75, 4)
    assert late.robust.value == 0.25
    assert early.perturbation is None
    assert late.perturbation is not None
    assert (late.perturbation.value, late.perturbation.n) == (pytest.approx(0.2), 3)


@pytest.mark.parametrize("n", [1, 5, 6, 25, 80])
def test_the_interval_of_a_median_holds_its_level(n: int) -> None:
    """The bounds are the widest pair of values whose binomial coverage is at least 95 %; none below six."""
    from scipy.stats import binom

    found = order_median(np.arange(1.0, n + 1))
    assert found.value == (n + 1) / 2
    if n < 6:
        assert np.isinf([found.low, found.high]).all()
        return
    low = int(found.low)
    assert found.high == n + 1 - low
    assert 1 - 2 * binom.cdf(low - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(low, n, 0.5) < 0.95


def test_an_attack_by_itself_has_a_curve_that_agrees_with_its_accuracy(tmp_path: Path) -> None:
    found = result(protocol="none", individual_attacks=[{"hop_skip_jump": {"queries": 120}}, "fgsm"])
    queries, gradients = found.result.individual_attacks
    for row in queries.rows:
        assert [level.queries for level in row.by_queries] == [10, 20, 50, 100, 120]
        robust = [level.robust.value for level in row.by_queries]
        assert robust == sorted(robust, reverse=True)
        assert row.valid is not None
        assert robust[-1] == row.valid.value
        medians = [level.perturbation.value for level in row.by_queries if level.perturbation]
        assert medians == sorted(medians, reverse=True)
        assert all(level.perturbation.n == 7 for level in row.by_queries if level.perturbation)
    assert all(not row.by_queries for row in gradients.rows)
    assert found.arrays["query_sizes"].shape == (8, 2, 2, 5)
    found.save(tmp_path)
    assert AttackResult.load(tmp_path).facts == found.facts
    (table,) = query_tables(found.result)
    assert table.columns[:2] == ("queries", "median perturbation")
    assert len(table.rows) == 5


def test_a_protocol_says_how_many_it_broke_within_how_many_queries() -> None:
    found = result(protocol=[{"square": {"queries": 40}}])
    trace = max(found.result.traces, key=lambda trace: trace.eps)
    assert trace.broke_within[40] == trace.broke
    assert list(trace.broke_within) == [10, 20, 40]
    (table,) = query_tables(found.result)
    assert [row[3] for row in table.rows] == ["10", "20", "40"]


def test_what_counts_no_queries_leaves_no_trace_of_them() -> None:
    """Results of other attacks are as before, key for key."""
    found = result(protocol=["fgsm"], individual_attacks=["fgsm"])
    text = json.dumps(found.facts)
    assert "by_queries" not in text
    assert "broke_within" not in text
    assert "query_sizes" not in found.arrays
    assert query_tables(found.result) == []
