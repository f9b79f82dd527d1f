"""Each detector against the formula of its paper, as OpenOOD and scikit-learn compute it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from stresslens.plugins.detectors.energy import energy
from stresslens.plugins.detectors.knn import knn
from stresslens.plugins.detectors.mahalanobis import mahalanobis
from stresslens.plugins.detectors.max_logit import max_logit
from stresslens.plugins.detectors.max_softmax import max_softmax
from stresslens.plugins.detectors.vim import vim

RANDOM = np.random.default_rng(0)
FEATURES, NEW = RANDOM.normal(size=(200, 10)), RANDOM.normal(size=(30, 10))
LABELS = np.arange(200) % 4
WEIGHT, BIAS = RANDOM.normal(size=(4, 10)), RANDOM.normal(size=4)
LOGITS, NEW_LOGITS = FEATURES @ WEIGHT.T + BIAS, NEW @ WEIGHT.T + BIAS


def test_logits_by_hand() -> None:
    logits, none = np.array([[0.0, np.log(3)], [1, 1]]), np.empty((2, 0))
    assert max_softmax()(none, logits) == pytest.approx([0.25, 0.5])
    assert max_logit()(none, logits) == pytest.approx([-np.log(3), -1])
    assert energy()(none, logits) == pytest.approx([-np.log(4), -1 - np.log(2)])
    assert energy(temperature=2)(none, logits)[1] == pytest.approx(-1 - 2 * np.log(2))


def test_mahalanobis_is_that_of_scikit_learn() -> None:
    centres = np.stack([FEATURES[k == LABELS].mean(0) for k in range(4)])
    shared = EmpiricalCovariance(assume_centered=True).fit(FEATURES - centres[LABELS])
    expected = np.min([shared.mahalanobis(NEW - centre) for centre in centres], axis=0)
    assert np.allclose(mahalanobis(FEATURES, LABELS)(NEW, NEW_LOGITS), expected)


def test_a_direction_without_variance_does_not_count() -> None:
    flat = np.concatenate([FEATURES, np.ones((200, 1))], 1)
    new = np.concatenate([NEW, np.full((30, 1), 5.0)], 1)
    assert np.allclose(
        mahalanobis(flat, LABELS)(new, NEW_LOGITS), mahalanobis(FEATURES, LABELS)(NEW, NEW_LOGITS)
    )


@pytest.mark.parametrize("k", [1, 7, 200, 1000])
def test_knn_is_the_distance_of_normalised_features(k: int) -> None:
    known, new = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (FEATURES, NEW))
    expected = NearestNeighbors(n_neighbors=min(k, 200)).fit(known).kneighbors(new)[0][:, -1]
    assert np.allclose(knn(FEATURES, k=k)(NEW, NEW_LOGITS), expected, atol=1e-6)


def test_vim_is_that_of_openood() -> None:
    u = -np.matmul(np.linalg.pinv(WEIGHT), BIAS)
    fitted = EmpiricalCovariance(assume_centered=True).fit(FEATURES - u)
    values, vectors = np.linalg.eig(fitted.covariance_)
    ns = np.ascontiguousarray(vectors.T[np.argsort(values * -1)[4:]].T)
    alpha = LOGITS.max(axis=-1).mean() / np.linalg.norm(np.matmul(FEATURES - u, ns), axis=-1).mean()
    confidence = logsumexp(NEW_LOGITS, axis=-1) - np.linalg.norm(np.matmul(NEW - u, ns), axis=-1) * alpha
    found = vim(FEATURES, LOGITS, WEIGHT, BIAS, dimension=4)(NEW, NEW_LOGITS)
    assert np.allclose(found, -confidence)


def test_vim_takes_the_dimension_of_the_paper_and_needs_a_residual() -> None:
    half = vim(FEATURES, LOGITS, WEIGHT, BIAS)(NEW, NEW_LOGITS)
    assert np.allclose(half, vim(FEATURES, LOGITS, WEIGHT, BIAS, dimension=5)(NEW, NEW_LOGITS))
    with pytest.raises(ValueError, match="leaves no residual of 10 features"):
        vim(FEATURES, LOGITS, WEIGHT, BIAS, dimension=10)
