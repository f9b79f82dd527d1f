"""What every detector of out-of-distribution images keeps to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stresslens.config import registry
from stresslens.metrics.ranking import auroc

every = pytest.mark.parametrize("name", registry.names("detectors"))


def classified(n: int, seed: int = 0) -> dict[str, Any]:
    """Features of three classes in 8 dimensions, and the logits of a linear layer that tells them apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = 4 * np.eye(8)[:3]
    features = centres[labels] + 0.4 * random.normal(size=(n, 8))
    weight, bias = centres - centres.mean(0), np.array([0.1, 0.0, -0.1])
    logits = features @ weight.T + bias
    return {"features": features, "labels": labels, "logits": logits, "weight": weight, "bias": bias}


@every
def test_scores_are_finite_one_for_each_image_whatever_the_others_are(name: str) -> None:
    given, new = classified(90), classified(12, 1)
    score = registry.resolve("detectors", name)(**given)
    found = score(features=new["features"], logits=new["logits"])
    assert found.shape == (12,)
    assert np.isfinite(found).all()
    alone = [
        score(features=new["features"][k : k + 1], logits=new["logits"][k : k + 1])[0] for k in range(12)
    ]
    assert np.allclose(found, alone, rtol=1e-6, atol=1e-6)
    assert score(features=new["features"][:0], logits=new["logits"][:0]).shape == (0,)


@every
def test_images_between_all_classes_score_higher(name: str) -> None:
    given, inside = classified(300), classified(60, 1)
    outside = 0.3 * np.random.default_rng(2).normal(size=(60, 8)) + 0.2
    logits = outside @ given["weight"].T + given["bias"]
    score = registry.resolve("detectors", name)(**given)
    scores = np.concatenate(
        [
            score(features=inside["features"], logits=inside["logits"]),
            score(features=outside, logits=logits),
        ]
    )
    area = auroc(np.stack([-scores, scores], 1), np.repeat([0, 1], 60)).each[1].value
    assert area > 0.9, area


@every
def test_what_it_was_fitted_on_is_not_changed(name: str) -> None:
    given = classified(60)
    before = {key: value.copy() for key, value in given.items()}
    score = registry.resolve("detectors", name)(**given)
    score(features=given["features"], logits=given["logits"])
    assert all(np.array_equal(given[key], before[key]) for key in given)
