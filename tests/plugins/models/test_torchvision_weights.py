"""What torchvision's own loader does to published weights and their images is done here, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import load_into
from stresslens.core.torchvision_compat import torchvision as library
from stresslens.core.weights_file import load_state
from stresslens.plugins.models.torchvision import published, torchvision


@pytest.mark.breadth(1)
@pytest.mark.parametrize(("name", "first"), [("googlenet", "conv1"), ("inception_v3", "Conv2d_1a_3x3")])
def test_the_first_layer_sees_what_it_sees_there(
    name: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind these weights torchvision's net changes the normalisation of its input."""
    zoo = library().models
    entry = zoo.get_model_weights(name).DEFAULT
    made = zoo.get_model(name, weights=None, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(type(entry), "get_state_dict", lambda self, *a, **k: made)  # instead of a download
    theirs, seen = zoo.get_model(name, weights="DEFAULT").eval(), []
    theirs.get_submodule(first).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 3, 80, 80)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (entry.transforms().mean, entry.transforms().std)
    )
    with torch.no_grad():
        theirs((x - mean) / std)
    weights = published(name=name, weights="DEFAULT")
    assert weights is not None
    assert weights.preprocessing is not None
    torch.testing.assert_close(weights.preprocessing.normalize(x), seen[0], atol=1e-5, rtol=1e-4)
    plain = published(name="resnet18", weights="DEFAULT")
    assert plain is not None
    assert plain.preprocessing is not None
    torch.testing.assert_close(plain.preprocessing.normalize(x), (x - mean) / std, atol=1e-5, rtol=1e-4)


def test_the_old_names_of_densenets_tensors_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torchvision((3, 32, 32), 3, name="densenet121")
    entry = library().models.get_model_weights("densenet121").DEFAULT
    old: dict[str, Any] = {}
    for key, value in net.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[key] = value
    assert old.keys() != net.state_dict().keys()
    monkeypatch.setattr(type(entry), "get_state_dict", lambda self, *a, **k: old)
    weights = published(name="densenet121", weights="DEFAULT")
    assert weights is not None
    report = load_into(net, weights.load(), "densenet", head=(), keep_head=True)
    assert len(report.used) == len(old)


def test_nets_that_ask_for_the_version_of_their_tensors_are_loaded() -> None:
    net, other = (torchvision((3, 32, 32), 3, name="mnasnet0_5") for _ in range(2))
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    load_state(other, tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in other.state_dict().items())
    assert len(load_into(other, tensors, "mnasnet", head=(), keep_head=True).used) == len(tensors)


def test_weights_that_are_not_finite_are_refused() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"1 tensor of the weights holds NaN or infinity, first weight"):
        load_into(
            net,
            {"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)},
            "a file",
            head=(),
            keep_head=True,
        )
