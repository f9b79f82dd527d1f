"""Two modules have one digest if, and only if, they compute the same function."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import threading
import types
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens.core.copies import copied
from stresslens.core.module_digest import digest_of


class Holder(nn.Module):
    """A linear layer of fixed weights, and whatever is kept beside it."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.constant_(self.layer.bias, 0.25)
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Settings:
    def __init__(self, gain: float) -> None:
        self.gain = gain
        self.itself = self  # a cycle


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain: float) -> None:
        self.gain = gain


GAIN = 1.0


def times_gain(x: Tensor) -> Tensor:
    return x * GAIN


def closure(gain: float) -> Callable[[Tensor], Tensor]:
    def scaled(x: Tensor) -> Tensor:
        return x * gain

    return scaled


def default(gain: float) -> Callable[..., Tensor]:
    def scaled(x: Tensor, gain: float = gain) -> Tensor:
        return x * gain

    return scaled


def keyword_default(gain: float) -> Callable[..., Tensor]:
    def scaled(x: Tensor, *, gain: float = gain) -> Tensor:
        return x * gain

    return scaled


def compiled_from(text: str, **names: Any) -> Any:
    """A function typed into a session, with global names of its own."""
    space: dict[str, Any] = {"__name__": "__main__", "torch": torch, "nn": nn, **names}
    exec(text, space)
    return space["made"]


def typed_class(body: str) -> nn.Module:
    """A class of one name and equal weights, defined anew in a notebook's cell."""
    text = f"class Net(nn.Module):\n    gain = 1.0\n    def forward(self, x):\n        {body}\nmade = Net()"
    net: nn.Module = compiled_from(text)
    return net


def own_module(gain: float) -> types.ModuleType:
    module = types.ModuleType("preprocessing")
    exec(f"def scale(x):\n    return x * {gain}\n", vars(module))
    return module


def hooked(gain: float) -> nn.Module:
    net = Holder()
    net.layer.register_forward_hook(lambda module, inputs, out: out * gain)
    return net


def mode_of_a_listed_module(train: bool) -> nn.Module:
    net = Holder([nn.Dropout(0.5).train(train)])
    return net


def scripted(gain: float) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), Holder(), Scaled(gain))
    return torch.jit.trace(net, torch.zeros(1, 4))  # type: ignore[no-any-return]


class Gained(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Scaled(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.full((1,), gain)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def frozen(requires_grad: bool) -> nn.Module:
    net = Holder()
    net.layer.weight.requires_grad_(requires_grad)
    return net


def listed(gain: float) -> nn.Module:
    part = nn.Linear(2, 2)
    nn.init.constant_(part.weight, gain)
    nn.init.zeros_(part.bias)
    return Holder([part])


def of_dtype(dtype: torch.dtype) -> nn.Module:
    return Holder().to(dtype)


def own_subclass(gain: float) -> nn.Module:
    forward = f"def forward(self, x): return super().forward(x) * {gain}"
    text = f"class Mine(nn.Linear):\n    {forward}\nmade = Mine"
    net = nn.Sequential(nn.Flatten(), compiled_from(text)(4, 3))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    return net


def decorated(gain: float) -> nn.Module:
    """The wrapper is torch's; what it wraps is the user's."""
    return Holder(torch.no_grad()(closure(gain)))


def method_of_an_object(gain: float) -> nn.Module:
    class Pipeline:
        def __init__(self) -> None:
            self.gain = gain

        def __call__(self, x: Tensor) -> Tensor:
            return x * self.gain

        def scale(self, x: Tensor) -> Tensor:
            return x * self.gain

    return Holder(Pipeline().scale)


VARIANTS: dict[str, Callable[[Any], nn.Module]] = {
    "tensor": lambda v: Holder(torch.full((3,), v)),
    "requires grad": lambda v: frozen(v > 1),
    "bfloat16 tensor": lambda v: Holder(torch.full((3,), v, dtype=torch.bfloat16)),
    "sparse tensor": lambda v: Holder((torch.eye(3) * v).to_sparse()),
    "complex tensor": lambda v: Holder(torch.full((3,), v + 1j)),
    "array": lambda v: Holder(np.full(3, v)),
    "masked array": lambda v: Holder(np.ma.array([1.0, 2.0], mask=[v > 1, False])),
    "counter": lambda v: Holder(itertools.count(int(v))),
    "array of objects": lambda v: Holder(np.array([v, "x"], dtype=object)),
    "number": lambda v: Holder(v),
    "even number": lambda v: Holder(int(2 * v)),
    "numpy number": lambda v: Holder(np.float32(v)),
    "text": lambda v: Holder(str(v)),
    "list": lambda v: Holder([1, [v]]),
    "tuple": lambda v: Holder((1, (v,))),
    "dictionary": lambda v: Holder({"a": {"gain": v}}),
    "ordered dictionary": lambda v: Holder(OrderedDict(a=v)),
    "default of a dictionary": lambda v: Holder(defaultdict(closure(v))),
    "set": lambda v: Holder({v, "x", "y"}),
    "deque": lambda v: Holder(deque([v])),
    "range": lambda v: Holder(range(int(v))),
    "object": lambda v: Holder(Settings(v)),
    "slots": lambda v: Holder(Slotted(v)),
    "regular expression": lambda v: Holder(re.compile(str(v))),
    "random generator": lambda v: Holder(np.random.default_rng(int(v))),
    "torch generator": lambda v: Holder(torch.Generator().manual_seed(int(v))),
    "lambda": lambda v: Holder((lambda x: x) if v == 1 else (lambda x: x * 0.3)),
    "constant of a function": lambda v: Holder(compiled_from(f"made = lambda x: x * {v}")),
    "closure": lambda v: Holder(closure(v)),
    "default": lambda v: Holder(default(v)),
    "keyword default": lambda v: Holder(keyword_default(v)),
    "partial": lambda v: Holder(functools.partial(torch.mul, other=v)),
    "cached function": lambda v: Holder(functools.lru_cache(closure(v))),
    "global number": lambda v: Holder(compiled_from("made = lambda x: x * GAIN", GAIN=v)),
    "global tensor": lambda v: Holder(compiled_from("made = lambda x: x * GAIN", GAIN=torch.tensor(v))),
    "global function": lambda v: Holder(compiled_from("made = lambda x: f(x)", f=closure(v))),
    "global of an inner function": lambda v: Holder(
        compiled_from("def made(x):\n    return (lambda: x * GAIN)()", GAIN=v)
    ),
    "own module": lambda v: Holder(compiled_from("made = lambda x: pre.scale(x)", pre=own_module(v))),
    "method": method_of_an_object,
    "decorated": decorated,
    "torch function": lambda v: Holder(torch.sin if v == 1 else torch.cos),
    "function of torch.nn": lambda v: Holder(nn.functional.relu if v == 1 else nn.functional.gelu),
    "module in a list": listed,
    "mode of a module in a list": lambda v: mode_of_a_listed_module(v > 1),
    "hook": hooked,
    "class": lambda v: typed_class(f"return x * {v}"),
    "attribute of a class": lambda v: compiled_from(
        f"class Net(nn.Module):\n    gain = {v}\n    def forward(self, x): return x * self.gain\nmade = Net()"
    ),
    "property of a class": lambda v: compiled_from(
        f"class Net(nn.Module):\n    @property\n    def gain(self): return {v}\nmade = Net()"
    ),
    "subclass of a layer": own_subclass,
    "heads of attention": lambda v: nn.MultiheadAttention(8, int(2 * v)),
    "order of norm and attention": lambda v: nn.TransformerEncoderLayer(8, 2, 8, norm_first=v > 1),
    "dtype": lambda v: of_dtype(torch.float32 if v == 1 else torch.float64),
    "mode": lambda v: Holder().train(v > 1),
    "trace": scripted,
    "script": lambda v: torch.jit.script(nn.Sequential(nn.Linear(2, 2), Gained(v))),
    "constant of a trace": lambda v: torch.jit.trace(Scaled(v), torch.zeros(1, 4)),
}


def made(name: str, value: float) -> nn.Module:
    torch.manual_seed(0)
    return VARIANTS[name](value)


@pytest.mark.breadth(25)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's of itself
@pytest.mark.parametrize("name", VARIANTS)
def test_a_difference_is_seen_and_none_is_made_up(name: str) -> None:
    one, same, other = (digest_of(made(name, value)).text() for value in (1.0, 1.0, 2.0))
    assert one == same
    assert one != other


def test_a_changed_attribute_is_seen() -> None:
    net = Holder({"gain": 1.0})
    before = digest_of(net).text()
    net.kept["gain"] = 2.0
    assert digest_of(net).text() != before


def test_a_global_that_the_forward_pass_reads_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Holder(times_gain)
    before = digest_of(net).text()
    monkeypatch.setitem(globals(), "GAIN", 3.0)
    assert digest_of(net).text() != before


def test_shared_weights_are_not_equal_weights() -> None:
    shared, equal = nn.Linear(2, 2), nn.Linear(2, 2)
    equal.load_state_dict(shared.state_dict())
    twice, alike = nn.Sequential(shared, shared), nn.Sequential(shared, equal)
    assert digest_of(twice).text() != digest_of(alike).text()


def test_comments_and_places_do_not_count() -> None:
    first = compiled_from("made = lambda x: x * 2")
    second = compiled_from("\n\n# two\nmade = lambda x: x * 2  # more")
    assert digest_of(Holder(first)).text() == digest_of(Holder(second)).text()


def test_what_cannot_be_looked_into_is_named() -> None:
    assert digest_of(Holder(threading.Lock())).opaque == ("_thread.lock",)
    with open(__file__) as file:
        assert digest_of(Holder({"a": [file]})).opaque
    assert digest_of(Holder(Settings(1.0))).opaque == ()


def test_compiling_does_not_change_the_function() -> None:
    net = Holder()
    before = digest_of(net).text()
    net.compile(backend="eager")
    assert digest_of(net).text() == before


def test_a_copy_of_an_object_does_not_change_its_digest() -> None:
    class Fresh:
        gain = 2.0

    held = Holder(Fresh())
    before = digest_of(held)
    copied(held)  # copyreg keeps the names of slots in the class
    assert "__slotnames__" in vars(Fresh)
    assert digest_of(held) == before


def test_nothing_is_changed_by_looking() -> None:
    class Raises:
        @property
        def value(self) -> float:
            raise RuntimeError("not now")

    net = Holder(Raises())
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert digest_of(net).text() == digest_of(net).text()
    assert all(value.equal(state[name]) for name, value in net.state_dict().items())


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_module_digest import VARIANTS, made
from stresslens.core.copies import copied
from stresslens.core.module_digest import digest_of
for name in VARIANTS:
    print(name, digest_of(made(name, 1.0)).text(), sep="\\t")
"""


@pytest.mark.slow
def test_another_process_finds_the_same(tmp_path: Path) -> None:
    """With another seed of Python's hashes, and so another order of sets."""
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**__import__("os").environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == len(VARIANTS)


def test_what_warns_when_it_is_looked_at_warns_nobody() -> None:
    class Deprecated:
        """As `torch.distributed.reduce_op`."""

        def __getattribute__(self, name: str) -> Any:
            warnings.warn("deprecated", FutureWarning, stacklevel=2)
            return object.__getattribute__(self, name)

    net = nn.Linear(2, 2)
    vars(net)["old"] = Deprecated()
    assert digest_of(net) == digest_of(net)
