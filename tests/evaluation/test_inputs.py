"""What cannot be attacked is refused in words before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.data import Split

X, Y = torch.rand(12, 1, 4, 4), torch.arange(12) % 3
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


class Returns(nn.Module):
    """A model that returns whatever `of` makes of the logits."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.net, self.of = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), of

    def forward(self, x: Tensor) -> Any:
        return self.of(self.net(x))


class Estimator:
    def fit(self, x: Any, y: Any) -> None: ...
    def predict(self, x: Any) -> Any: ...


def spoiled(value: float) -> Tensor:
    x = X.clone()
    x[5, 0, 1, 1] = value
    return x


IMAGES: list[tuple[Any, Any, str]] = [
    (spoiled(1.5), Y, r"1 image leaves \[0, 1\].*first at index 5"),
    (X * 255, Y, "divide by 255"),
    (2 * X - 1, Y, "put the normalisation into the model"),
    (spoiled(float("nan")), Y, "1 image holds NaN or infinity, first at index 5"),
    ((X * 255).int(), Y, "int32; expected floats in"),
    (X, Y + 0.5, "label 0 is 0.5; expected words"),
    (X, Y + 1, r"label 3 \(image 2\) is out of range"),
    (X, Y - 1, r"label -1 \(image 0\) is out of range"),
    (X, Y[:5], "12 images but 5 labels"),
    (X, None, "labels are missing"),
    (X[0], Y, "1 image but 12 labels"),
    (X[:0], Y[:0], "no images"),
    ("photos", Y, "photos cannot be read as an image: No such file"),
    (None, Y, "attack needs images and their labels"),
    (torch.rand(12, 1, 5, 5), Y, r"cannot take images of shape \(1, 5, 5\)"),
]


@pytest.mark.parametrize(("images", "labels", "said"), IMAGES, ids=[said[:24] for *_, said in IMAGES])
def test_images_and_labels(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(sl.StresslensError, match=said):
        sl.attack(MODEL, images, labels, radii=0.1)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split(X * 5 - 2, Y, 1.0), "put the normalisation into the model"),
        (Split(X * 255, Y, 1.0), "divide by 255"),
        (Split(spoiled(1.5), Y, 1.0), r"1 image leaves \[0, 1\] \(.* to 1.5\), first at index 5"),
        (Split((X * 255).to(torch.uint8), Y, 1.0), "divide by 255"),
        (np.full((12, 1, 4, 4), "x"), "images are not an array of numbers"),
    ],
)
def test_a_split_out_of_range(split: Any, said: str) -> None:
    with pytest.raises(sl.DataError, match=said):
        sl.attack(MODEL, split, Y if isinstance(split, np.ndarray) else None, radii=0.1)


MODELS: list[tuple[Any, str]] = [
    (Returns(lambda z: z.softmax(1)), "returns probabilities"),
    (Returns(lambda z: (z, z)), "returns a tuple"),
    (Returns(lambda z: z[:, :1]), "has 1 output"),
    (Returns(lambda z: z[:, :, None]), r"returns shape \(8, 3, 1\)"),
    (Returns(lambda z: z.sum()), r"returns shape \(\)"),
    (Returns(lambda z: z * float("nan")), "NaN or infinity"),
    (nn.Sequential(nn.Flatten(), nn.Linear(16, 3, device="meta")), "on the device meta"),
    (Estimator(), "the classifier Estimator is not fitted"),
    (lambda x: x, r"returned shape \(8, 1, 4, 4\) for 8 images"),
]


@pytest.mark.parametrize(("model", "said"), MODELS, ids=[said[:24] for _, said in MODELS])
def test_models(model: Any, said: str) -> None:
    with pytest.raises(sl.ConfigError, match=said):
        sl.attack(model, X, Y, radii=0.1)


@pytest.mark.parametrize(
    ("radii", "said"),
    [(-0.1, "from 0 up"), (8, "did you mean 8/255"), ("x", "number or a fraction"), ([], "at least one")],
)
def test_radii(radii: Any, said: str) -> None:
    with pytest.raises(sl.ConfigError, match=said):
        sl.attack(MODEL, X, Y, radii=radii)


def test_what_is_fine_is_let_in() -> None:
    bytes_ = (X * 255).to(torch.uint8)
    for images, labels in (
        (X, Y),
        (X.numpy(), Y.numpy()),
        (bytes_, Y.int()),
        (Split(X, Y, 1.0), None),
        (X.double(), list(Y)),
    ):
        found = sl.attack(MODEL, images, labels, radii=0.01, protocol=["fgsm"], audit=False)
        assert found.facts["n"] == 12
    assert isinstance(found.minimal_radius, np.ndarray)
