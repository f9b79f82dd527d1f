"""Where two recipes err, against a count by hand."""

from __future__ import annotations

import numpy as np

from stresslens.comparison.errors_by_class import count_errors


def test_counts_of_each_class_over_the_seeds() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    a, b = np.array([True, False, True, False, False]), np.array([True, True, False, False, True])
    assert count_errors([(a, b, labels)]) == {
        "images": [2, 0, 3],
        "only_a": [1, 0, 1],
        "only_b": [0, 0, 1],
        "both": [0, 0, 1],
    }
    swapped = count_errors([(a, b, labels), (b, a, labels)])
    assert swapped == {"images": [4, 0, 6], "only_a": [1, 0, 2], "only_b": [1, 0, 2], "both": [0, 0, 2]}


def test_divisions_may_hold_other_images() -> None:
    first = np.array([True]), np.array([False]), np.array([1])
    second = np.array([False, False]), np.array([True, False]), np.array([0, 1])
    assert count_errors([first, second]) == {
        "images": [1, 2],
        "only_a": [1, 0],
        "only_b": [0, 1],
        "both": [0, 1],
    }
