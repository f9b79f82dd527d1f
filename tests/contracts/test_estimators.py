"""What every estimator keeps to, whatever it is; tests/config/test_registry.py checks the signatures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from stresslens.config import registry
from stresslens.core.data import Data, Split
from stresslens.core.errors import DataError
from stresslens.core.types import Estimator

QUICK: dict[str, Any] = {"sift_bovw_svm": {"words": 40, "landmarks": 60, "step": 8}}
VARIANTS: dict[str, list[Any]] = {
    "sift_bovw_svm": [
        {"words": 20, "kernel": "linear", "step": 8},
        {"words": 20, "keypoints": "detected", "scale": 8},
    ],
    "hog_svm": [{"cell": 8, "kernel": "linear"}, {"cell": 8, "kernel": "rbf"}],
    "knn": [{"components": "all"}, {"neighbours": 1}],
}
VALUES = [
    pytest.param({name: options}, id=f"{name} {options}".replace("'", ""))
    for name in registry.names("estimators")
    for options in [QUICK.get(name, {}), *VARIANTS.get(name, [])]
]
every = pytest.mark.parametrize("value", VALUES)


def made(value: Any, seed: int = 0) -> Estimator:
    return registry.resolve("estimators", value)(seed=seed)  # type: ignore[no-any-return]


def arrays(split: Split | None) -> tuple[np.ndarray, np.ndarray]:
    assert split is not None
    return split.floats(split.images[:]).numpy(), split.labels.numpy()


def right(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(1) == labels).mean())


@pytest.mark.breadth(4)
@every
def test_scores_are_finite_and_better_than_chance_and_images_are_left_alone(value: Any, small: Data) -> None:
    (x, y), (x_test, y_test) = arrays(small.train), arrays(small.test)
    before = x.copy(), x_test.copy()
    estimator = made(value)
    estimator.fit(x, y)
    scores = estimator.scores(x_test)
    assert scores.shape == (len(x_test), 10)
    assert np.isfinite(scores).all()
    assert right(scores, y_test) > 0.4
    assert np.array_equal(before[0], x)
    assert np.array_equal(before[1], x_test)


@pytest.mark.breadth(1)
@every
def test_the_same_seed_gives_the_same_scores_which_plain_arrays_carry(value: Any, small: Data) -> None:
    (x, y), (x_test, _) = arrays(small.train), arrays(small.test)
    first, again, third = made(value, 3), made(value, 3), made(value, 3)
    first.fit(x, y)
    again.fit(x, y)
    file = io.BytesIO()
    np.savez(file, **first.arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as kept:
        third.arrays = dict(kept)
    assert np.array_equal(first.scores(x_test), again.scores(x_test))
    assert np.array_equal(first.scores(x_test), third.scores(x_test))


@pytest.mark.breadth(3)
@every
def test_an_images_scores_are_its_own(value: Any, small: Data) -> None:
    (x, y), (x_test, _) = arrays(small.train), arrays(small.test)
    estimator = made(value)
    estimator.fit(x, y)
    alone = np.concatenate([estimator.scores(x_test[k : k + 1]) for k in range(5)])
    assert np.allclose(alone, estimator.scores(x_test)[:5], atol=1e-5)


@pytest.mark.breadth(4)
@every
def test_two_classes(value: Any, small: Data) -> None:
    (x, y), (x_test, y_test) = arrays(small.train), arrays(small.test)
    estimator = made(value)
    estimator.fit(x[y < 2], y[y < 2])
    scores = estimator.scores(x_test[y_test < 2])
    assert scores.shape == (12, 2)
    assert right(scores, y_test[y_test < 2]) > 0.7


@pytest.mark.breadth(4)
@every
@pytest.mark.parametrize("shape", [(3, 16, 20), (2, 13, 12), (1, 1, 1)], ids=str)
def test_any_shape_and_images_of_one_colour(value: Any, shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    x, y = random.random((60, *shape), np.float32), np.arange(60) % 3
    x[y == 1, :, : shape[1] // 2] /= 4
    estimator = made(value)
    if shape == (1, 1, 1) and "sift_bovw_svm" in value:  # one pixel made larger is one colour
        with pytest.raises(DataError, match="0 descriptors, fewer than the"):
            estimator.fit(x, y)
        return
    estimator.fit(x, y)
    flat = np.stack([np.full(shape, grey, np.float32) for grey in (0.0, 0.4, 1.0)])
    assert np.isfinite(estimator.scores(np.concatenate([x, flat]))).all()
