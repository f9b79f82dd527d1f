"""The principal axes of many values, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.extmath import randomized_svd

from stresslens.evaluation.principal_axes import principal_axes


@pytest.mark.parametrize(
    ("rows", "columns", "axes"), [(300, 100, 64), (70, 200, 64), (64, 64, 64), (90, 30, 1)]
)
def test_the_axes_are_those_of_scikit_learn_to_the_bit(rows: int, columns: int, axes: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    values -= values.mean(0)
    theirs = randomized_svd(values, n_components=axes, n_iter=2, random_state=0)[2].T
    assert np.array_equal(principal_axes(values, axes), theirs)


def test_the_first_axis_of_values_on_a_line_is_the_line() -> None:
    line = np.array([0.6, 0.0, -0.8], np.float32)
    values = np.linspace(-1, 1, 21, dtype=np.float32)[:, None] * line
    assert np.allclose(np.abs(principal_axes(values, 1)[:, 0] @ line), 1.0, atol=1e-6)
