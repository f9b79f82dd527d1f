"""Scores become a class, or no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stresslens.core.answers import (
    NO_ANSWER,
    NOT_FINITE,
    answer_in_words,
    answer_with_confidence,
    answered,
    confidence,
    predicted,
)

INF, NAN = float("inf"), float("nan")
SCORES = {
    (1.0, 3.0, 2.0): 1,
    (2.0, 2.0, 1.0): 0,  # of equal scores the first
    (-INF, 1.0, 0.0): 1,  # a masked class is ruled out
    (-INF, -INF, -5.0): 2,
    (NAN, 1.0, 0.0): NO_ANSWER,
    (0.0, 1.0, NAN): NO_ANSWER,
    (NAN, NAN, NAN): NO_ANSWER,
    (0.0, INF, 1.0): NO_ANSWER,  # the softmax of infinity is NaN
    (INF, -INF, 0.0): NO_ANSWER,
    (-INF, -INF, -INF): NO_ANSWER,
    (-INF, NAN, 0.0): NO_ANSWER,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_scores_name_a_class_or_none(dtype: torch.dtype) -> None:
    scores = torch.tensor(list(SCORES), dtype=dtype)
    assert predicted(scores).tolist() == list(SCORES.values())
    assert answered(scores).tolist() == [k != NO_ANSWER for k in SCORES.values()]
    assert [int(predicted(row)) for row in scores] == list(SCORES.values())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_are_read_like_tensors(dtype: type) -> None:
    scores = np.array(list(SCORES), dtype)
    assert predicted(scores).tolist() == list(SCORES.values())
    assert predicted(scores[:0]).shape == (0,)


def test_a_softmax_is_a_distribution_exactly_where_there_is_an_answer() -> None:
    scores = torch.tensor(list(SCORES))
    p = scores.softmax(1)
    assert answered(scores).tolist() == p.isfinite().all(1).tolist()
    assert confidence(p)[~answered(scores)].tolist() == [0.0] * 7
    assert torch.equal(confidence(p)[answered(scores)], p[answered(scores)].amax(1))


def test_an_overflow_of_half_precision_is_no_answer() -> None:
    assert predicted(torch.tensor([[60_000.0, 1.0], [70_000.0, 1.0]]).half()).tolist() == [0, NO_ANSWER]


def test_no_answer_is_named_and_is_no_class() -> None:
    """Python's classes[-1] would be the last class."""
    assert answer_in_words(NO_ANSWER, ["cat", "dog"]) == NOT_FINITE
    assert answer_with_confidence(torch.tensor([0.1, 0.9]), ["cat", "dog"]) == "dog 90 %"
    assert answer_with_confidence(torch.tensor([NAN, NAN]), ["cat", "dog"]) == NOT_FINITE
