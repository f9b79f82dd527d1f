"""The module of an ensemble, against the definitions, on networks with given answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.core.ensembles import Ensemble, ensemble_in
from stresslens.core.inspection import feature_layer, features_of
from stresslens.evaluation.ensembles import members_compared, mutual_information
from stresslens.evaluation.scores import Predictions
from stresslens.plugins.explainers.gradcam import gradcam


def members(count: int, seed: int = 0) -> list[nn.Module]:
    torch.manual_seed(seed)
    return [nn.Sequential(nn.Flatten(), nn.Linear(12, 4)) for _ in range(count)]


IMAGES = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@given(st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_the_probabilities_are_the_mean_of_the_members(count: int, seed: int) -> None:
    nets = members(count, seed)
    probabilities = torch.stack([net(IMAGES).softmax(1) for net in nets]).mean(0)
    assert torch.allclose(Ensemble(nets)(IMAGES).softmax(1), probabilities, atol=1e-6)
    assert torch.allclose(Ensemble(nets)(IMAGES).exp(), probabilities, atol=1e-6)  # no constant is left
    logits = torch.stack([net(IMAGES) for net in nets]).mean(0)
    assert torch.allclose(Ensemble(nets, "logits")(IMAGES), logits, atol=1e-6)


def test_a_member_is_divided_by_its_temperature() -> None:
    nets = members(2)
    ensemble = Ensemble(nets, "logits")
    ensemble.temperatures.copy_(torch.tensor([1.0, 4.0]))
    assert torch.allclose(ensemble(IMAGES), (nets[0](IMAGES) + nets[1](IMAGES) / 4) / 2, atol=1e-6)


def test_the_gradient_is_that_of_every_member() -> None:
    ensemble, x = Ensemble(members(3)), IMAGES.clone().requires_grad_()
    nn.functional.cross_entropy(ensemble(x), torch.zeros(5, dtype=torch.int64)).backward()
    assert x.grad is not None
    assert (x.grad.abs().sum() > 0).all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in ensemble.parameters())


def test_the_features_are_the_logits_of_all_members() -> None:
    nets = members(2)
    model = nn.Sequential(Ensemble(nets))
    assert ensemble_in(model) is model[0]
    assert ensemble_in(nets[0]) is None
    assert feature_layer(model, (3, 2, 2))[1] == 8
    values, _ = features_of(model, IMAGES)
    assert torch.allclose(values, torch.cat([net(IMAGES) for net in nets], 1))


def test_mutual_information_by_hand() -> None:
    sure = np.array([[[1.0, 0]], [[0, 1.0]]])  # two members that are sure of different classes
    assert mutual_information(sure) == pytest.approx(np.log(2))
    assert mutual_information(np.array([[[0.3, 0.7]]] * 3)) == pytest.approx(0)
    doubtful = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    mean = np.array([0.7, 0.3])
    entropy = -(mean * np.log(mean)).sum()
    each = (np.log(2) - (0.9 * np.log(0.9) + 0.1 * np.log(0.1))) / 2
    assert mutual_information(doubtful) == pytest.approx(entropy - each)
    assert mutual_information(np.full((2, 1, 2), np.nan)) == pytest.approx(np.log(2))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 5))
@settings(deadline=None, max_examples=40)
def test_mutual_information_is_between_nothing_and_the_most(seed: int, m: int, k: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=(m, 7))
    found = mutual_information(probabilities)
    assert (found >= 0).all()
    assert (found <= np.log(min(m, k)) + 1e-12).all()


def test_members_beside_their_ensemble() -> None:
    labels = np.array([0, 1, 0, 1])
    right = 4 * np.eye(2)[labels] + np.array([[0.0, 0], [0.1, 0], [0, 0.2], [0, 0.3]])
    half = right[:, ::-1].copy()
    half[:2] = right[:2]
    each = [Predictions(scores, labels, np.arange(4)) for scores in (right, half)]
    found = members_compared(each, each[0])
    assert [e.value for e in found.accuracy] == [1, 0.5]
    assert [e.value for e in found.gain] == [0, 0.5]
    assert found.mean.value == 0.75
    assert found.gain_over_mean.value == 0.25
    assert found.disagreement.value == 0.5
    assert np.isnan(found.errors_by_information.value)  # the ensemble makes no error
    alone = members_compared(each[:1], each[0])
    assert (alone.disagreement.value, alone.mutual_information.value, alone.gain_over_mean.value) == (0, 0, 0)


class Seeing(nn.Module):
    """A network that sees one corner of the image."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row = row
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(x).relu()[:, 0]
        return torch.stack([seen[:, self.row].sum(1), -seen[:, self.row].sum(1)], 1)


def test_gradcam_is_the_mean_over_the_members() -> None:
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y, nets = torch.zeros(3, dtype=torch.int64), [Seeing(0), Seeing(3)]
    model = nn.Sequential(Ensemble(nets, "logits"))
    found = gradcam(model, x, y)
    alone = [gradcam(net, x, y).values for net in nets]
    assert torch.allclose(found.values, sum(alone) / 4, atol=1e-6)  # each is half of the ensemble's logit
    assert "members.0.conv" in found.unit
    assert "members.1.conv" in found.unit
    named = gradcam(model, x, y, layer="0.members.1.conv").values
    assert torch.allclose(named, alone[1] / 2, atol=1e-6)
