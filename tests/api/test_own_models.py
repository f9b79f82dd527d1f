"""Functions, fitted classifiers and pipelines of the caller's own, wherever a model is taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import SMALL
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.errors import ConfigError
from stresslens.plugins.datasets.digits import digits


def some_digits() -> tuple[Tensor, Tensor]:
    test = digits().test
    assert test is not None
    return test.floats(test.images[:60]), test.labels[:60]


@pytest.fixture(scope="module")
def fitted() -> Any:
    from sklearn.linear_model import LogisticRegression

    train = digits().train
    x = train.images[:].numpy().reshape(len(train), -1).astype(np.float64)
    return LogisticRegression(max_iter=40, tol=1e-2).fit(x, train.labels.numpy())


def test_a_fitted_classifier_is_evaluated_predicted_attacked_and_explained(fitted: Any) -> None:
    x, y = some_digits()
    model = sl.as_model(fitted, scale=16)
    right = (fitted.predict(16 * x.flatten(1).numpy()) == y.numpy()).mean()
    assert sl.evaluate(model, x, y)["accuracy"].value == pytest.approx(right)
    expected = fitted.predict_proba(16 * x.flatten(1).numpy())
    assert np.allclose(sl.predict(model, x), expected, atol=1e-5)
    assert np.allclose(sl.predict(fitted, x), fitted.predict_proba(x.flatten(1).numpy()), atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"classifier LogisticRegression has no gradient, and the attack fgsm"
    ):
        sl.attack(model, x, y, radii=0.3, protocol=["fgsm"])
    options: dict[str, Any] = {"protocol": [{"square": {"queries": 30}}], "audit": False, "progress": False}
    broken = sl.attack(model, x[:16], y[:16], radii=0.3, **options)
    assert broken.table()[-1].accuracy < right
    assert sl.explain(model, x[:2], "occlusion").maps.shape == (2, 8, 8)


def test_a_function_of_images(fitted: Any) -> None:
    x, y = some_digits()

    def chances(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.float32
        return fitted.predict_proba(16 * images.reshape(len(images), -1))  # type: ignore[no-any-return]

    with pytest.raises(
        ConfigError, match=r"the function chances returns probabilities .* output='probabilities'"
    ):
        sl.evaluate(chances, x, y)
    declared = sl.evaluate(sl.as_model(chances, output="probabilities"), x, y)
    assert declared["accuracy"].value == sl.evaluate(sl.as_model(fitted, scale=16), x, y)["accuracy"].value

    def decisions(images: np.ndarray) -> np.ndarray:
        return fitted.decision_function(16 * images.reshape(len(images), -1))  # type: ignore[no-any-return]

    assert sl.evaluate(decisions, x, y)["accuracy"].value == declared["accuracy"].value

    def names(images: np.ndarray) -> np.ndarray:
        return fitted.predict(16 * images.reshape(len(images), -1))  # type: ignore[no-any-return]

    found = sl.evaluate(sl.as_model(names, output="labels", classes=10), x, y)
    assert found["accuracy"].value == declared["accuracy"].value


def test_a_module_with_its_own_convention_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    x = torch.rand(5, 3, 8, 8)
    model = sl.as_model(net, layout="nhwc", bgr=True, mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.25], scale=2.0)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.1, 0.2, 0.3], [0.5, 0.5, 0.25]))
    expected = net((2 * (x - mean) / std).flip(1).permute(0, 2, 3, 1))
    assert torch.allclose(model(x), expected, atol=1e-5)
    pgd = {"pgd": {"steps": 3}}
    found = sl.attack(model, x, [0, 1, 2, 3, 0], radii=0.5, protocol=[pgd], audit=False, progress=False)
    assert found.result.n == 5


class Processor:
    def to_dict(self) -> dict[str, Any]:
        return {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 6, "width": 6}}


class Configured(nn.Module):
    """A module as transformers has it."""

    config = SimpleNamespace(to_dict=lambda: {"num_channels": 3, "image_size": 6})

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(108, 4)

    def forward(self, pixel_values: Tensor) -> Any:
        return {"logits": self.linear(pixel_values.flatten(1)), "loss": None}


def test_a_pipeline_brings_its_preprocessing() -> None:
    torch.manual_seed(0)
    pipeline = SimpleNamespace(model=Configured().eval(), image_processor=Processor())
    x = torch.rand(2, 3, 6, 6)
    expected = pipeline.model((x - 0.5) / 0.25)["logits"]
    assert torch.allclose(sl.as_model(pipeline)(x), expected, atol=1e-5)
    assert sl.as_model(pipeline)(torch.rand(2, 3, 12, 12)).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layout": "hwc"}, "'hwc' is none of nchw, nhwc, flat"),
        ({"output": "softmax"}, "'softmax' is none of logits, probabilities, labels"),
        ({"mean": [0.5], "std": [1.0, 1.0]}, "mean has 1 numbers and std 2"),
        ({"std": [0.0]}, "std and scale are above 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sl.as_model(lambda images: images, **options)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("lambda images: images.reshape(len(images), -1)[:, :10]", None),
        ("lambda images: images", r"returned shape \(2, 1, 8, 8\) for 2 images"),
        ("lambda images: [1, 2, 3]", r"returned shape \(3,\) for 2 images"),
        ("5", "returned a int; expected a torch.nn.Module, a function of a batch of images"),
    ],
)
def test_a_plugin_that_returns_a_function(returned: str, told: str | None, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"def mine(shape, classes):\n    return {returned}\n")
    options: dict[str, Any] = {"out": tmp_path / "runs", "epochs": 0}
    if told is not None:
        with pytest.raises(ConfigError, match=told):
            sl.train(f"{tmp_path}/mine.py:mine", SMALL, **options)
        return
    with pytest.raises(ConfigError, match=r"no parameters to train; set train.epochs=0"):
        sl.train(f"{tmp_path}/mine.py:mine", SMALL, **{**options, "epochs": 1})
    run = sl.train(f"{tmp_path}/mine.py:mine", SMALL, **options)
    assert 0 <= run.scores()["accuracy"].value < 0.5
