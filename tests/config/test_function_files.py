"""Functions and classes of a notebook, given where a plug-in is named."""

from __future__ import annotations

import functools
import linecache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stresslens.config import registry
from stresslens.config.function_files import with_names
from stresslens.core.errors import ConfigError, Problems

CELLS = count()


def cell(text: str, session: dict[str, Any]) -> dict[str, Any]:
    """Executes a cell of a notebook, and returns the values of the session."""
    name = f"<cell {next(CELLS)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    session["__name__"] = "__main__"
    exec(compile(text, name, "exec", dont_inherit=True), session)
    return session


LOSS = """
import torch.nn.functional as F
from torch import Tensor, exp, nn

WEIGHT = 3.0

def scaled(value):
    return WEIGHT * value

def my_loss(logits: Tensor, y: Tensor, *, power: float = 1.0) -> Tensor:
    "A loss."
    return scaled(F.cross_entropy(logits, y)) ** power + exp(logits.new_zeros(()))

class MyLoss(nn.Module):
    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, logits, y):
        return my_loss(logits, y, power=self.power)
"""


@pytest.mark.parametrize("name", ["my_loss", "MyLoss"])
def test_a_function_of_a_notebook_is_written_with_what_it_reads(name: str, tmp_path: Path) -> None:
    given = cell(LOSS, {})[name]
    values = with_names({"loss": {given: {"power": 2.0}}}, tmp_path)
    logits, y = torch.randn(6, 3), torch.arange(6) % 3
    loss = registry.resolve("losses", values["loss"])(logits=logits, y=y)
    assert torch.allclose(loss, (3 * F.cross_entropy(logits, y)) ** 2 + 1)


def test_the_name_follows_the_content(tmp_path: Path) -> None:
    session = cell(LOSS, {})
    first = with_names(session["my_loss"], tmp_path)
    assert with_names(cell(LOSS, {})["my_loss"], tmp_path) == first
    assert with_names(cell("WEIGHT = 4.0", session)["my_loss"], tmp_path) != first
    assert Path(first.rpartition(":")[0]).parent == tmp_path / "functions"


def test_what_reads_itself_or_has_another_name(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
import functools, math
from torch import Tensor as Numbers
def twice(function):
    @functools.wraps(function)
    def both(*a, **k): return 2 * function(*a, **k)
    return both
def down(k): return 0 if k == 0 else down(k - 1)
lower = down
@twice
def mine(logits: Numbers, y):
    return math.sqrt(4) + lower(3)
"""
    assert registry.resolve("losses", with_names(cell(text, {})["mine"], tmp_path))() == 4


DECORATED = """
import functools
import torch

def bare(function):
    def call(*args):
        return function(*args)
    return call

def wrapped(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)
    return call

class MySGD(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                each -= self.factor * self.half(self.same(self.twice(self.rate(group)))) * each.grad

    @property
    @torch.no_grad()
    def factor(self): return self.one * self.two()

    @functools.cached_property
    def one(self): return 0.5

    two = lambda self: 2.0

    @staticmethod
    @wrapped
    @torch.no_grad()
    def half(value): return value / 2

    @wrapped
    @wrapped
    def twice(self, value): return value * 2

    @classmethod
    @torch.no_grad()
    def same(cls, value): return value

    @bare
    def rate(self, group): return group["lr"]
"""


@pytest.mark.parametrize("used", [False, True])
def test_decorated_methods_are_written_as_they_stand(used: bool, tmp_path: Path) -> None:
    given = cell(DECORATED, {})["MySGD"]
    if used:  # torch then wraps its method step
        given([nn.Parameter(torch.ones(1))])
    values = with_names({"optimizer": given}, tmp_path)
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([4.0])
    optimizer = registry.resolve("optimizers", values["optimizer"])(parameters=[weight], lr=0.25)
    optimizer.step()
    assert weight.item() == 0.0  # 1 - 0.25 * 4


def test_what_can_be_imported_is_named(tmp_path: Path) -> None:
    given = {"optimizer": torch.optim.SGD, "loss": nn.CrossEntropyLoss, "augment": ["flip", {}]}
    named = {"optimizer": "torch.optim:SGD", "loss": "torch.nn:CrossEntropyLoss", "augment": ["flip", {}]}
    assert with_names(given, tmp_path) == named
    assert list(tmp_path.iterdir()) == []


def refused(text: str, tmp_path: Path, name: str = "mine") -> str:
    with pytest.raises(ConfigError) as error:
        with_names({"loss": cell(text, {})[name]}, tmp_path)
    return str(error.value)


def test_what_cannot_be_written_down_is_refused_with_a_way_out(tmp_path: Path) -> None:
    way_out = ". Write it into a file and name it: 'my_file.py:mine'"
    tensor = "import torch\nw = torch.ones(3)\ndef mine(logits, y): return (logits * w).sum()"
    assert refused(tensor, tmp_path) == (
        f"loss: mine reads w, a Tensor of this session, which cannot be written down{way_out}"
    )
    closure = "def around(k):\n    def mine(logits, y): return k\n    return mine\nmine = around(2)"
    assert refused(closure, tmp_path) == f"loss: mine uses k of the function around it{way_out}"
    assert "a lambda cannot be written down" in refused("mine = lambda logits, y: 0", tmp_path)
    session: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def mine(logits, y): return 0", "<stdin>", "exec"), session)
    with pytest.raises(ConfigError, match="the source of mine is not there"):
        with_names(session["mine"], tmp_path)


def test_a_source_that_has_changed_is_not_taken(tmp_path: Path) -> None:
    mine = cell("def mine(logits, y): return 1", {})["mine"]
    name = mine.__code__.co_filename
    linecache.cache[name] = (1, None, ["def mine(logits, y): return 2\n"], name)
    with pytest.raises(ConfigError, match="the source of mine is not there"):
        with_names(mine, tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (nn.CrossEntropyLoss(), "loss is an instance of CrossEntropyLoss; give its class and options"),
        (functools.partial(print), "loss is a partial; give its function and the options"),
        (torch.optim.SGD([torch.zeros(1)], 0.1), "loss is an instance of SGD; give its class"),
    ],
    ids=["module", "partial", "optimizer"],
)
def test_instances_are_refused_with_a_way_out(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        with_names({"loss": value}, tmp_path)


def test_parameters_of_other_names_are_refused_as_those_of_a_file(tmp_path: Path) -> None:
    name = with_names(cell("def mine(output, target): return 0", {})["mine"], tmp_path)
    with pytest.raises(Problems, match="asks for output, target; a loss may ask for: logits, y"):
        registry.resolve("losses", name)
