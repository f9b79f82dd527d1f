"""Certificates of awkward modules: a radius holds, or the module is refused by name."""

from __future__ import annotations

import pytest
import torch
from awkward_modules import AWKWARD, build
from module_state import dtype_of, evaluated, images, same, state

from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.plugins.certificates.interval import interval
from stresslens.plugins.certificates.smoothing import smoothing

# torch.compile reads .grad of the images, which are no leaf
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
every = pytest.mark.parametrize("name", AWKWARD)

CERTIFIED = {
    "plain",
    "shared relu",
    "shared pool",
    "shared relu and pool",
    "shared convolution",
    "backward hook",
    "backward pre-hook",
    "parametrised",
    "weight norm",
    "spectral norm",
    "orthogonal",
    "in-place relu",
    "in-place relu of the input",
    "compiled",
    "nested Sequential",
    "dropout",
    "batch norm",
    "frozen batch norm",
    "overlapping pool",
    "pool with ceil",
    "partly frozen",
    "lazy",
    "channels last",
    "float64",
}
"""The modules that interval bounds know exactly; the others are refused."""


@pytest.mark.breadth(18)
@every
def test_an_interval_radius_holds_or_the_module_is_refused(name: str) -> None:
    model = evaluated(name)
    x = images(8, dtype_of(model))
    before = state(model)
    with attacked(model):
        y = model(x).argmax(1)
        try:
            radius = interval(model, x, y)
        except ConfigError as error:
            refused = str(error)
        else:
            refused = ""
        assert bool(refused) == (name not in CERTIFIED)
        if refused:
            assert refused.startswith("interval bounds do not support the layer")
        else:
            assert (radius > 0).all()
            for seed in range(20):
                noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype) - 0.5
                near = (x + radius.to(x).reshape(-1, 1, 1, 1) * noise.sign()).clamp(0, 1)
                assert (model(near).argmax(1) == y).all()
    assert same(before, state(model))


def test_bounds_that_the_model_leaves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check at points of the ball finds a layer that no rule about classes knows of."""
    monkeypatch.setattr("stresslens.plugins.certificates.interval._reason_against", lambda module: "")
    x = images()
    wrong = build("hook changes the linear layer").eval()
    for net in (wrong, build("forward of the relu replaced").eval()):
        with attacked(net), pytest.raises(ConfigError, match="contradict the model"):
            interval(net, x, net(x).argmax(1))


@pytest.mark.parametrize(
    ("name", "words"),
    [("batch norm without statistics", "depend on the other images"), ("dropout", "is random")],
)
def test_smoothing_needs_independent_votes(name: str, words: str) -> None:
    model, x = build(name), images()
    y = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad(), pytest.raises(ConfigError, match=words):
        smoothing(model.train(), x, y, Draws(0, torch.arange(len(x))), n0=10, n=20)
