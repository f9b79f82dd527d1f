"""Nets that end in a softmax or a sigmoid are told, in training and in an attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from finished_runs import OPTIONS, SMALL
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.errors import Notice
from stresslens.training.probabilities import ending_findings


class Ends(nn.Module):
    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.linear(x.flatten(1)))


def rescaled(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum(1, keepdim=True)


TOLD: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a module": ("softmax", nn.Softmax(1)),
    "a function": ("softmax", lambda x: F.softmax(x, dim=1)),
    "a method": ("softmax", lambda x: x.softmax(1)),
    "by hand": ("softmax", rescaled),
    "a view behind it": ("softmax", lambda x: x.softmax(1).view(-1, 10)),
    "a sigmoid": ("sigmoid", torch.sigmoid),
    "a view behind a sigmoid": ("sigmoid", lambda x: x.sigmoid().reshape(-1, 10)),
}
FINE: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda x: x,
    "log-probabilities": lambda x: F.log_softmax(x, dim=1),
    "relu": F.relu,
    "a sigmoid that is scaled": lambda x: 10 * x.sigmoid(),
    "small logits": lambda x: 0.01 * x.abs(),
}


def notes(end: Callable[[Tensor], Tensor]) -> list[str]:
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return [note.message for note in ending_findings(Ends(end), x)]


@pytest.mark.parametrize("name", TOLD)
def test_it_is_found(name: str) -> None:
    what, end = TOLD[name]
    (message,) = notes(end)
    assert f"the net ends in a {what};" in message
    assert message.endswith(f"Remove the {what} from the net")


@pytest.mark.parametrize("name", FINE)
def test_others_are_not(name: str) -> None:
    assert notes(FINE[name]) == []


OWN = """from stresslens.plugins import Loss


def objective(net, inputs, y, *, loss: Loss = "mse"):
    return loss(logits=net(inputs), y=y)


def loss(logits, y):
    return logits.mean()
"""


@pytest.mark.parametrize(
    ("objective", "of_loss"),
    [
        ({"supervised": {"loss": "cross_entropy"}}, True),
        ({"supervised": {"loss": {"torch.nn:CrossEntropyLoss": {"label_smoothing": 0.1}}}}, True),
        ({"trades": {"loss": "mse"}}, True),
        ("contrastive", True),
        ({"supervised": {"loss": "mse"}}, False),
        ({"adversarial": {"loss": "torch.nn:BCELoss"}}, False),
        ({"supervised": {"loss": "torch.nn:MultiMarginLoss"}}, False),
        ("own.py:objective", False),
        ({"own.py:objective": {"loss": "cross_entropy"}}, True),
        ({"supervised": {"loss": "with_softmax.py:loss"}}, True),
    ],
)
def test_a_softmax_of_the_loss_is_said_where_it_has_one(
    objective: Any, of_loss: bool, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "with_softmax.py").write_text(OWN + "\n\ndef has_softmax():\n    return True\n")
    (note,) = ending_findings(Ends(torch.sigmoid), torch.rand(8, 1, 8, 8), objective, tmp_path)
    assert ("the loss expects logits and has a softmax of its own" in note.message) == of_loss
    assert "the probabilities" in note.message or "a run's probabilities" in note.message
    assert "Remove the sigmoid from the net" in note.message


def test_training_names_the_loss_that_it_uses(tmp_path: Path) -> None:
    with pytest.warns(Notice, match=r"ends in a sigmoid; a run's probabilities are the softmax"):
        sl.train(Ends(nn.Sigmoid()), SMALL, out=tmp_path, loss="mse", **OPTIONS)


def test_training_tells_it_once_and_notes_it(tmp_path: Path) -> None:
    with pytest.warns(Notice, match=r"the net ends in a softmax.*Remove the softmax") as told:
        run = sl.train(Ends(nn.Softmax(1)), SMALL, out=tmp_path, **OPTIONS)
    assert len(told) == 1
    assert [note["kind"] for note in run.record["findings"]] == ["probabilities"]


@pytest.mark.parametrize("name", [name for name, (what, _) in TOLD.items() if what == "softmax"])
def test_an_attack_refuses_it(name: str) -> None:
    net = Ends(TOLD[name][1])
    with pytest.raises(sl.ConfigError, match=r"returns probabilities.*remove the softmax"):
        sl.attack(net, torch.rand(4, 1, 8, 8), [0, 1, 2, 3], radii=0.1)
