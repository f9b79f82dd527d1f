"""How fast recipes learn against each other: differences epoch by epoch, where each starts, when it
has converged."""

from __future__ import annotations

import numpy as np
import pytest

from stresslens.comparison.convergence import Learning, convergence_of


def learning(*seeds: list[float], n: int = 100, epochs: list[int] | None = None) -> Learning:
    return Learning(epochs or list(range(1, len(seeds[0]) + 1)), np.array(seeds), n)


def test_differences_over_seeds_are_paired() -> None:
    first = learning([0.50, 0.80], [0.60, 0.90], [0.55, 0.85])
    second = learning([0.70, 0.81], [0.80, 0.91], [0.75, 0.86])
    told = convergence_of("c", "scratch", "tuned", first, second)
    assert told is not None
    early, late = (each.difference for each in told.epochs)
    assert (early.value, early.low, early.high) == pytest.approx((0.2, 0.2, 0.2))
    assert late.value == pytest.approx(0.01)
    assert early.unit == "seeds"


def test_two_seeds_have_no_interval_over_seeds() -> None:
    """Two that agree would have an interval of no width, two that do not one from -1 to 1."""
    first, second = learning([0.50, 0.80], [0.60, 0.90]), learning([0.70, 0.95], [0.80, 0.91])
    told = convergence_of("c", "scratch", "tuned", first, second)
    assert told is not None
    for epoch, value in zip(told.epochs, (0.2, 0.08), strict=True):
        found = epoch.difference
        assert (found.value, found.unit) == (pytest.approx(value), "images")
        assert 0.05 < found.high - found.value < 0.2


def test_one_seed_has_an_interval_over_images() -> None:
    told = convergence_of("c", "a", "b", learning([48 / 80, 0.8], n=80), learning([56 / 80, 0.8], n=80))
    assert told is not None
    first = told.epochs[0].difference
    assert first.value == pytest.approx(0.1)
    assert first.low < 0 < first.high
    assert first.method == "Newcombe"


def test_where_each_starts_and_when_it_has_converged() -> None:
    scratch = learning([0.2, 0.4, 0.6, 0.795, 0.8])
    tuned = learning([0.6, 0.7, 0.71, 0.70, 0.71])
    told = convergence_of("c", "scratch", "tuned", scratch, tuned)
    assert told is not None
    assert told.converged == {"scratch": 4, "tuned": 2}
    assert told.said == (
        "tuned starts ahead: 60.0 % after epoch 1 against 20.0 %, which scratch reaches in epoch 3; "
        "within a point of its best: tuned in epoch 2, scratch in epoch 4"
    )


def test_what_is_never_reached_is_said() -> None:
    told = convergence_of("c", "a", "b", learning([0.1, 0.2]), learning([0.9, 0.95]))
    assert told is not None
    assert "which a never reaches in 2 epochs" in told.said


def test_only_epochs_that_both_were_watched_at_count() -> None:
    told = convergence_of(
        "c", "a", "b", learning([0.1, 0.2, 0.3], epochs=[1, 2, 3]), learning([0.2, 0.4], epochs=[2, 3])
    )
    assert told is not None
    assert [each.epoch for each in told.epochs] == [2, 3]
    assert convergence_of("c", "a", "b", learning([0.1, 0.2]), learning([0.2, 0.4], epochs=[5, 6])) is None


def test_many_epochs_are_told_at_a_few() -> None:
    rising = [k / 2000 for k in range(1000)]
    told = convergence_of("c", "a", "b", learning(rising), learning(rising))
    assert told is not None
    listed = [each.epoch for each in told.epochs]
    assert len(listed) <= 24
    assert (listed[0], listed[-1]) == (1, 1000)


def test_those_that_start_alike() -> None:
    told = convergence_of("c", "a", "b", learning([0.5, 0.6]), learning([0.5, 0.9]))
    assert told is not None
    assert told.said == (
        "a and b start alike, at 50.0 % after epoch 1; within a point of its best: a in epoch 2, b in epoch 2"
    )
