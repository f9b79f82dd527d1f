"""Every step that rewrites or copies a model by its types, on awkward modules: it computes the user's
function or refuses in words, and leaves the module as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from awkward_modules import AWKWARD, build
from module_state import data, dtype_of, evaluated, images, same, state, with_notices
from torch import Tensor, nn

from stresslens.config.schema import Train
from stresslens.core.attack_base import attacked
from stresslens.core.compute_choice import possible_ways
from stresslens.core.copies import check_copy, copied, departure, eager_module, fast_copy, quick, responses
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.inspection import evaluating, to_evaluation_mode
from stresslens.core.layers import Normalize, with_input_layers
from stresslens.core.pool_order import PooledFirst, pool_first
from stresslens.robustness.autotune import AttackCompute
from stresslens.training.moving_average import weight_average
from stresslens.training.setup import laid_out

# torch.compile reads .grad of the images, which are no leaf
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
every = pytest.mark.parametrize("name", AWKWARD)
Step = Callable[[nn.Module, Tensor], nn.Module]


def _laid_out(memory_format: Any) -> Step:
    def step(model: nn.Module, x: Tensor) -> nn.Module:
        net = _checked(eager_module(model), x)
        front = with_input_layers(net, Normalize(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))
        precision: Any = str(x.dtype).removeprefix("torch.")
        return laid_out(front, ComputeConfig("cpu", precision, 1, memory_format), data())

    return step


def _channels_last(model: nn.Module, x: Tensor) -> nn.Module:
    return fast_copy(model, x, memory_format=torch.channels_last)


def _pooled(model: nn.Module, x: Tensor) -> nn.Module:
    copy = copied(model)
    pool_first(copy)
    check_copy(model, copy, x)
    return copy


def _checked(model: nn.Module, x: Tensor) -> nn.Module:
    copy = copied(model)
    check_copy(model, copy, x)
    return copy


def _averaged(model: nn.Module, x: Tensor) -> nn.Module:
    average = weight_average(_checked(model, x), Train(ema=0.9))
    assert average is not None
    average.update_parameters(model)
    return average.module


STEPS: dict[str, Step] = {
    "without torch.compile": lambda model, x: eager_module(model),
    "checked copy": _checked,
    "pooling before relu": _pooled,
    "faster copy": fast_copy,
    "faster copy, channels last": _channels_last,
    "copy for many passes": lambda model, x: quick(model, x),
    "attack": lambda model, x: AttackCompute().model(model, x),
    "attack, channels last": lambda model, x: AttackCompute(memory_format="channels_last").model(model, x),
    "training": _laid_out("contiguous"),
    "training, channels last": _laid_out("channels_last"),
    "moving average": _averaged,
}


QUICK_STEPS = ("pooling before relu", "faster copy", "attack", "training")
"""Steps of the fast tests; the others are for `make test-all`."""


@pytest.mark.breadth(20)
@every
@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=[] if step in QUICK_STEPS else pytest.mark.slow) for step in STEPS],
)
def test_a_rewritten_module_computes_the_same_or_is_refused(name: str, step: str) -> None:
    model = evaluated(name)
    x = images(dtype=dtype_of(model))
    expected = _untouched_responses(name)
    before = state(model)
    with with_notices():
        try:
            changed = STEPS[step](model, x)
        except ConfigError:
            changed = model
        to_evaluation_mode(changed)
        found = responses(changed, x)
        gradients_of_input = [_of_input(each) for each in (expected, found)]
        assert not departure(*gradients_of_input)
    assert same(before, state(model))
    assert not departure(expected, responses(model, x))


@functools.cache
def _untouched_responses(name: str) -> list[dict[str, Tensor]]:
    """Those of a module that no step has seen, computed once for all steps."""
    model = evaluated(name)
    return responses(model, images(dtype=dtype_of(model)))


def _of_input(found: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [
        {k: v for k, v in each.items() if k.startswith("output") or k == "gradient of the images"}
        for each in found
    ]


def test_the_steps_are_in_use_where_they_are_safe() -> None:
    x = images()
    for name in (
        "plain",
        "in-place relu",
        "batch norm",
        "shared relu and pool",
        "tapped by slice",
        "dropout",
    ):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            copy = fast_copy(evaluated(name), x, memory_format=memory_format)
            assert any(isinstance(module, PooledFirst) for module in copy.modules())


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("kept by a closure", "gradient"),
        ("forward replaced by a closure", "gradient"),
        ("keeps text features", "gradient of proj.weight"),
        ("copy is itself", "same parameters"),
    ],
)
def test_a_copy_that_is_another_function_is_refused_by_name(name: str, refused: str) -> None:
    model, x = build(name), images()
    with pytest.raises(ConfigError, match=type(eager_module(model)).__name__) as error:
        _checked(model, x)
    assert refused in str(error.value) or "attribute 'seen'" in str(error.value)


@pytest.mark.parametrize("name", ["view", "as_strided", "asks for the memory layout"])
def test_another_memory_layout_is_noticed(name: str) -> None:
    model, x = evaluated(name), images()
    with pytest.raises(ConfigError, match="does not compute the same"):
        _channels_last(model, x)
    with pytest.warns(Notice, match="used as it is"):
        assert quick(model, x) is model
    with pytest.raises(ConfigError, match=r"memory_format: channels_last.*contiguous"):
        _laid_out("channels_last")(model, x)


@pytest.mark.breadth(15)
@every
def test_contexts_leave_the_module_and_the_images_as_they_were(name: str) -> None:
    for frozen in (attacked, evaluating):
        model = build(name)
        x = images(dtype=dtype_of(model))
        before, pixels = state(model), x.clone()
        with frozen(model), torch.no_grad():
            first, second = model(x), model(x)
        assert torch.equal(x, pixels)
        assert torch.allclose(first, second, atol=1e-6)
        if name != "buffers" or frozen is attacked:
            assert same(before, state(model))


@pytest.mark.parametrize("name", ["view", "as_strided", "scatter", "asks for the memory layout"])
def test_a_configuration_in_which_a_net_computes_something_else_is_not_chosen(name: str) -> None:
    model = build(name)
    possible = possible_ways(model, images(4), "cpu", ["float32", "bfloat16"])
    works = ["channels_last", "contiguous"] if name == "scatter" else ["contiguous"]
    assert sorted(possible["float32"]) == works
    assert ("bfloat16" in possible) == (name != "scatter")
    asked = possible_ways(model, images(4), "cpu", ["float32"], ["channels_last"])
    assert asked == {"float32": ["channels_last"]}  # training says why it does not work
