"""Answers: the class that a model's scores name, or no answer.

The scores of an image name no class if the highest of them is not finite or if any of them is NaN:
their softmax is then no distribution. A class that is masked with -inf is a class that the model
rules out, so scores with some -inf do name one. No answer is a wrong answer, and it is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.text import NOT_FINITE as NOT_FINITE

Scores = TypeVar("Scores", Tensor, NDArray[Any])

NO_ANSWER = -1
"""In place of a class, where the scores name none. It equals no label and no target."""


def answered(scores: Scores) -> Scores:
    """(…) whether the scores (…, K) of each image name a class."""
    array: Any = torch if isinstance(scores, Tensor) else np
    finite: Scores = array.isfinite(array.amax(scores, -1))  # the maximum of numbers with NaN is NaN
    return finite


def predicted(scores: Scores) -> Scores:
    """(…) the class with the highest of the scores (…, K), of equal scores the first; or
    `NO_ANSWER`."""
    array: Any = torch if isinstance(scores, Tensor) else np
    classes: Scores = array.where(answered(scores), scores.argmax(-1), NO_ANSWER)
    return classes


def confidence(probabilities: Scores) -> Scores:
    """(…) the highest of the probabilities (…, K); 0 where they name no class."""
    array: Any = torch if isinstance(probabilities, Tensor) else np
    highest: Scores = array.where(answered(probabilities), array.amax(probabilities, -1), 0.0)
    return highest


def answer_in_words(answer: int, classes: Sequence[str]) -> str:
    """The name of a predicted class, or `NOT_FINITE`."""
    return NOT_FINITE if answer == NO_ANSWER else classes[answer]


def answer_with_confidence(probabilities: Tensor, classes: Sequence[str], digits: int = 0) -> str:
    """The class with the highest of the probabilities (K,), and that in percent; or
    `NOT_FINITE`."""
    name, sure = answer_in_words(int(predicted(probabilities)), classes), float(confidence(probabilities))
    return name if name == NOT_FINITE else f"{name} {100 * sure:.{digits}f} %"
