"""Kernels, histograms and votes against slow loops and figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stresslens.core.errors import DataError
from stresslens.plugins.estimators import _svm
from stresslens.plugins.estimators._pictures import grey
from stresslens.plugins.estimators.hog_svm import gradients_of
from stresslens.plugins.estimators.knn import knn
from stresslens.plugins.estimators.logistic_regression import logistic_regression
from stresslens.plugins.estimators.sift_bovw_svm import _Bag, sift_bovw_svm

RANDOM = np.random.default_rng(0)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def pictures(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square, upper left or lower right."""
    images, labels = RANDOM.random((n, 1, 20, 20), np.float32) / 4, np.arange(n) % 2
    images[labels == 0, :, 3:9, 3:9] += 0.7
    images[labels == 1, :, 11:17, 5:17] += 0.7
    return images, labels


# --- the kernel ---------------------------------------------------------------------------------------------


def slow_chi2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distances = np.zeros((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            for p, q in zip(a, b):
                distances[i, j] += (p - q) ** 2 / (p + q) if p + q > 0 else 0
    return distances


def test_the_chi_square_distance_of_histograms_with_empty_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_svm, "PIECE", 4)
    x, y = RANDOM.random((9, 6)) * (RANDOM.random((9, 6)) < 0.6), RANDOM.random((5, 6))
    x[3] = 0
    assert np.allclose(_svm._distances("chi2", x, y), slow_chi2(x, y))
    assert np.allclose(_svm._distances("chi2", x, x), slow_chi2(x, x))


@pytest.mark.parametrize("kernel", ["chi2", "rbf"])
def test_the_map_of_all_images_is_the_kernel_itself(kernel: _svm.Kernel) -> None:
    x, labels = RANDOM.random((30, 8)), np.arange(30) % 3
    arrays = _svm.Machine(kernel, 1.0, 30, 0).fitted(x, labels)
    seen = x if kernel == "chi2" else (x - x.mean(0)) / x.std(0)
    distances = slow_chi2(seen, seen) if kernel == "chi2" else np.square(seen[:, None] - seen[None]).sum(2)
    mapped = _svm._mapped(x, arrays, kernel)
    assert np.allclose(mapped @ mapped.T, np.exp(-distances / distances.mean()), atol=1e-6)


def test_features_are_standardised_and_one_that_never_varies_is_harmless() -> None:
    x = np.stack([RANDOM.normal(5, 3, 50), np.full(50, 2.0)], axis=1)
    machine = _svm.Machine("linear", 1.0, 5, 0)
    arrays = machine.fitted(x, (x[:, 0] > 5).astype(int))
    seen = _svm._standardised(x, arrays)
    assert np.allclose(seen.mean(0), 0)
    assert np.allclose(seen.std(0), [1, 0])
    assert np.isfinite(machine.decisions(x, arrays)).all()


def test_two_classes_have_a_score_each_that_differ_by_the_margin() -> None:
    found = _svm.of_each_class(np.array([[2.0, -4.0]]), np.array([6.0]))
    assert found["weights"].tolist() == [[-1, 2], [1, -2]]
    assert found["bias"].tolist() == [-3, 3]


# --- pictures and histograms --------------------------------------------------------------------------------


def test_grey_is_luma_of_three_channels_and_else_the_mean_and_small_pictures_grow() -> None:
    colour = np.zeros((1, 3, 60, 80), np.float32)
    colour[:, 1] = 1.0
    assert grey(colour, "auto", least=56).shape == (1, 60, 80)
    assert (grey(colour, "auto", least=56) == 150).all()  # 0.587 of 255
    two = np.stack([np.zeros((8, 10), np.float32), np.ones((8, 10), np.float32)])[None]
    assert grey(two, "auto", least=56).shape == (1, 56, 70)
    assert (grey(two, 3, least=56) == 128).all()


def test_a_histogram_counts_the_nearest_words_of_an_images_own_descriptors() -> None:
    images, labels = pictures(12)
    bag = sift_bovw_svm(0, words=7, step=10, vocabulary_images=5)
    assert isinstance(bag, _Bag)
    bag.fit(images, labels)
    found = np.concatenate(list(bag._histograms(images)))
    for row, own in zip(found, next(bag._descriptors(images))):
        counts = [0] * 7
        for descriptor in own:
            counts[int(np.argmin(np.square(descriptor - bag.arrays["words"]).sum(1)))] += 1
        assert np.allclose(row, np.array(counts) / len(own))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("keypoints", ["dense", "detected"])
def test_an_image_without_keypoints_has_a_zero_histogram_and_a_finite_score(keypoints: str) -> None:
    images, labels = pictures()
    images[7] = 0.3
    bag = sift_bovw_svm(0, words=5, keypoints=keypoints, kernel="chi2")  # type: ignore[arg-type]
    assert isinstance(bag, _Bag)
    bag.fit(images, labels)
    histograms = np.concatenate(list(bag._histograms(images)))
    assert not histograms[7].any()
    assert np.allclose(np.delete(histograms.sum(1), 7), 1)
    assert np.isfinite(bag.scores(images[6:8])).all()
    assert np.isfinite(bag.scores(images[7:8])).all()


def test_fewer_descriptors_than_words_are_told() -> None:
    images, labels = pictures()
    with pytest.raises(
        DataError, match=r"2 training images have .* descriptors, fewer than the 5000 words; lower words"
    ):
        sift_bovw_svm(0, words=5000, vocabulary_images=2).fit(images, labels)


def test_gradients_of_an_edge_and_of_nothing() -> None:
    edge = np.zeros((2, 16, 16), np.uint8)
    edge[0, :, 8:] = 200
    found = gradients_of(edge, cell=8, bins=4)
    assert found.shape == (2, 1 * 4 * 4)
    assert not found[1].any()
    # direction 0 lies between the middles of the last bin and the first, and half of each vote goes to either
    cells = found[0].reshape(4, 4)
    assert np.allclose(cells, [[0.3535534, 0, 0, 0.3535534]] * 4, atol=1e-6)


def test_as_many_gradients_as_blocks_hold_and_sides_are_filled_up() -> None:
    assert gradients_of(np.zeros((1, 28, 28), np.uint8), cell=4, bins=9).shape == (1, 6 * 6 * 4 * 9)
    assert gradients_of(np.zeros((1, 27, 25), np.uint8), cell=4, bins=9).shape == (1, 6 * 6 * 4 * 9)
    assert gradients_of(np.zeros((1, 4, 4), np.uint8), cell=4, bins=9).shape == (1, 9)


# --- votes and logits ---------------------------------------------------------------------------------------


def test_votes_are_worked_out_by_hand() -> None:
    images = np.array([0.0, 0.1, 0.5, 1.0], np.float32).reshape(4, 1, 1, 1)
    nearest = knn(0, neighbours=2, components="all")
    nearest.fit(images, np.array([0, 1, 1, 2]))
    found = nearest.scores(np.full((1, 1, 1, 1), 0.025, np.float32))
    shares = np.array([0.75, 0.25, 0.0])  # distances 0.025 and 0.075
    assert np.allclose(softmax(found)[0], (2 * shares + 1 / 3) / 3, atol=1e-5)
    assert np.allclose(np.exp(found).sum(), 1)


def test_logistic_regression_is_scikit_learns_in_one_linear_map() -> None:
    images, labels = pictures()
    ours = logistic_regression(C=0.5)
    ours.fit(images, labels)
    pixels = images.reshape(len(images), -1)
    theirs = LogisticRegression(C=0.5, max_iter=200).fit((pixels - pixels.mean(0)) / pixels.std(), labels)
    expected = theirs.predict_proba((pixels - pixels.mean(0)) / pixels.std())
    assert np.allclose(softmax(ours.scores(images)), expected, atol=1e-4)
