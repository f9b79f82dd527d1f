"""Which of a net's outputs are its logits, and those of its auxiliary heads."""

from __future__ import annotations

import pytest
import torch
from module_state import images
from several_outputs import SEVERAL_OUTPUTS, UNCLEAR
from torch import nn

import stresslens as sl
from stresslens.core.errors import ConfigError
from stresslens.core.outputs import auxiliary_logits, hook_logits, logits_in
from stresslens.plugins.losses.cross_entropy import cross_entropy
from stresslens.plugins.objectives.supervised import supervised


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SEVERAL_OUTPUTS)
def test_the_logits_are_the_named_or_the_only_scores(name: str, training: bool) -> None:
    net, x = SEVERAL_OUTPUTS[name]().train(training), images()
    output = net(x)
    logits = logits_in(output, net)
    assert logits.shape == (6, 3)
    hook_logits(net)
    assert torch.equal(net(x), logits)


@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_outputs_are_refused_in_words(name: str) -> None:
    net = UNCLEAR[name]()
    net.train(name == "features first in training")
    with pytest.raises(ConfigError, match=r"Heads returns a .*return them alone, or under the name logits"):
        logits_in(net(images()), net)


@pytest.mark.parametrize(
    ("name", "heads"),
    [("tuple in training", 1), ("list in training", 1), ("named tuple", 1), ("tuple of one", 0)],
)
def test_auxiliary_heads_add_their_loss_at_its_weight(name: str, heads: int) -> None:
    net, x, y = SEVERAL_OUTPUTS[name](), images(), torch.arange(6) % 3
    main, others = logits_in(net(x), net), net.auxiliary(net.features(x))
    hook_logits(net)
    with auxiliary_logits(net) as found:
        net(x)
    assert len(found) == heads
    expected = cross_entropy(main, y) + heads * 0.5 * cross_entropy(others, y)
    assert torch.allclose(supervised(net, x, y, loss=cross_entropy, auxiliary_weight=0.5), expected)
    with auxiliary_logits(net.eval()) as found:
        net(x)
    assert not found


def test_the_users_own_hook_comes_first() -> None:
    net = SEVERAL_OUTPUTS["tuple in training"]()
    net.register_forward_hook(lambda module, inputs, output: output[1] if module.training else output)
    hook_logits(net)
    x, y = images(), torch.arange(6) % 3
    expected = cross_entropy(net.auxiliary(net.features(x)), y)
    assert torch.allclose(supervised(net, x, y, loss=cross_entropy), expected)


def test_a_net_of_unclear_outputs_is_not_attacked() -> None:
    x, y = images(), torch.arange(6) % 3
    net = UNCLEAR["two logits"]()
    for ask in (
        lambda: sl.attack(net, x, y, radii=[0.1]),
        lambda: sl.explain(net, x, "saliency"),
        lambda: sl.evaluate(net, x, y),
        lambda: sl.predict(net, x),
        lambda: sl.verify(net, x, x, y, eps=0.1),
    ):
        with pytest.raises(ConfigError, match="2 tensors that may be logits"):
            ask()
    assert not any(isinstance(module, nn.Module) and module._forward_hooks for module in net.modules())
