"""Fitted classifiers of scikit-learn as models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from foreign_models import NAMES, built, images
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stresslens.core.errors import ConfigError
from stresslens.core.gradient_free import why_no_gradient


def fitted(classifier: Any, labels: Any = None) -> Any:
    x = images(80).flatten(1).numpy()
    order = x[:, 0].argsort().argsort() * 4 // 80
    return classifier.fit(x, order if labels is None else np.array(labels)[order])


@pytest.mark.parametrize(
    ("classifier", "expected"),
    [
        (LogisticRegression(), lambda c, x: np.log(c.predict_proba(x))),
        (make_pipeline(StandardScaler(), Perceptron()), lambda c, x: c.decision_function(x)),
        (Perceptron(), lambda c, x: c.decision_function(x)),
    ],
    ids=["probabilities", "pipeline", "decision"],
)
def test_a_fitted_classifier(classifier: Any, expected: Callable[..., Any], tmp_path: Path) -> None:
    made = fitted(classifier)
    joblib.dump(made, tmp_path / "made.joblib")
    model = built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}})
    x = images()
    assert torch.allclose(model(x), torch.from_numpy(expected(made, x.flatten(1).numpy())).float(), atol=1e-4)
    assert "classifier" in why_no_gradient(model)
    with pytest.raises(ConfigError, match="joblib and pickle execute what is in the file"):
        built({"sklearn": {"file": str(tmp_path / "made.joblib")}})


def test_its_classes_are_matched_by_name(tmp_path: Path) -> None:
    made = fitted(LogisticRegression(), ["d", "a", "c", "b"])
    joblib.dump(made, tmp_path / "made.joblib")
    value = {"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}}
    x = images()
    assert [NAMES[k] for k in built(value)(x).argmax(1)] == list(made.predict(x.flatten(1).numpy()))
    with pytest.raises(ConfigError, match="does not know the class 'e' of the data; its classes are a, b, c"):
        built(value, names=("a", "b", "c", "e"))


def test_a_classifier_that_only_names_classes(tmp_path: Path) -> None:
    made = fitted(NearestCentroid())
    hidden = type("Names", (), {"fit": None, "predict": made.predict, "classes_": made.classes_})()
    from stresslens.core.fitted_classifier import of_classifier

    x = images()
    logits = of_classifier(hidden, NAMES)(x)
    assert logits.argmax(1).tolist() == made.predict(x.flatten(1).numpy()).tolist()
    assert set(logits.flatten().tolist()) == {0.0, 1.0}
    some = of_classifier(hidden, None, columns=[2, 0])(x)
    assert torch.equal(some.nan_to_num(-1)[:, 0] == 1, logits[:, 2] == 1)
    assert torch.equal(some.isnan().all(1), logits[:, [0, 2]].sum(1) == 0)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (LogisticRegression(), "is not fitted"),
        ({"a": 1}, "is a dict; expected a fitted classifier"),
        (StandardScaler(), "is a StandardScaler; expected a fitted classifier"),
        (
            DummyClassifier(strategy="uniform").fit(np.zeros((4, 2)), [[0, 1]] * 4),
            "several questions at once",
        ),
    ],
    ids=["not fitted", "no classifier", "a transformer", "multi-output"],
)
def test_a_file_with_something_else(made: Any, told: str, tmp_path: Path) -> None:
    joblib.dump(made, tmp_path / "made.joblib")
    with pytest.raises(ConfigError, match=told):
        built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}})


def test_a_classifier_of_other_images(tmp_path: Path) -> None:
    joblib.dump(fitted(LogisticRegression()), tmp_path / "made.joblib")
    with pytest.raises(ConfigError, match=r"cannot take images of shape \(1, 8, 8\).*features"):
        built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}}, shape=(1, 8, 8))
