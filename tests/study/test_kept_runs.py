"""A run that is kept is returned to the module and the data it belongs to, and to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.config.run_names import LONGEST

OPTIONS: dict[str, Any] = {"epochs": 1, "precision": "float32", "threads": 1, "watch": [], "select": "last"}


class Net(nn.Module):
    def __init__(self, before: Callable[[Tensor], Tensor] | None = None, factor: int = 2) -> None:
        super().__init__()
        self.layer, self.before, self.factor = nn.Linear(16, 2), before, factor
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.before is None else self.before(x)
        out: Tensor = self.layer(x.flatten(1) * self.factor)
        return out


@pytest.fixture
def data() -> sl.Data:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = torch.rand(60, 1, 4, 4, generator=generator) * 0.5 + labels[:, None, None, None] * 0.4
    return sl.Data.from_arrays(images, labels)


def scaled(gain: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * gain


def frozen() -> Net:
    net = Net()
    net.layer.bias.requires_grad_(False)
    return net


def listed(dropout: float) -> nn.Module:
    net = Net()
    net.unregistered = [nn.Dropout(dropout)]  # type: ignore[assignment]
    return net


OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "a number": (lambda: Net(factor=2), lambda: Net(factor=4)),
    "a closure": (lambda: Net(scaled(1.0)), lambda: Net(scaled(0.5))),
    "a frozen parameter": (Net, frozen),
    "a module in a list": (lambda: listed(0.1), lambda: listed(0.6)),
}


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", OTHERS)
def test_another_module_of_equal_weights_is_another_run(name: str, data: sl.Data, tmp_path: Path) -> None:
    one, other = OTHERS[name]
    first = sl.train(one(), data, out=tmp_path, **OPTIONS)
    assert sl.train(one(), data, out=tmp_path, **OPTIONS).record == first.record
    assert sl.train(other(), data, out=tmp_path, **OPTIONS).folder != first.folder


def test_another_module_under_the_same_name_is_refused(data: sl.Data, tmp_path: Path) -> None:
    one, other = OTHERS["a number"]
    sl.train(one(), data, out=tmp_path, name="mine", **OPTIONS)
    with pytest.raises(sl.ConfigError, match=r"another configuration \(model: 'own module Net"):
        sl.train(other(), data, out=tmp_path, name="mine", **OPTIONS)


def test_the_mode_before_training_does_not_count(data: sl.Data, tmp_path: Path) -> None:
    """Training sets it."""
    net = Net()
    first = sl.train(net, data, out=tmp_path, **OPTIONS)
    assert sl.train(net.eval(), data, out=tmp_path, **OPTIONS).record == first.record


def test_a_module_that_cannot_be_compared_is_not_taken_for_the_one_before(
    data: sl.Data, tmp_path: Path
) -> None:
    class Guarded(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def __deepcopy__(self, memo: Any) -> Guarded:
            return Guarded()

    sl.train(Guarded(), data, out=tmp_path, **OPTIONS)
    with pytest.raises(sl.ConfigError, match=r"cannot be compared.*_thread\.lock"):
        sl.train(Guarded(), data, out=tmp_path, **OPTIONS)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("change", ["images", "labels"])
def test_data_that_were_changed_in_place_are_other_data(change: str, data: sl.Data, tmp_path: Path) -> None:
    first = sl.train("linear", data, out=tmp_path, **OPTIONS)
    sl.train("linear", data, out=tmp_path, name="mine", **OPTIONS)
    values = getattr(data.train, change)
    values[0] = 1 - values[0]
    with pytest.raises(sl.ConfigError, match="the data set has changed"):
        sl.train("linear", data, out=tmp_path, name="mine", **OPTIONS)
    assert sl.train("linear", data, out=tmp_path, **OPTIONS).folder != first.folder


@pytest.mark.slow
def test_each_call_with_other_arguments_is_another_run(tmp_path: Path) -> None:
    short: dict[str, Any] = {"subset": {"images": 50}, **OPTIONS}
    calls: list[dict[str, Any]] = [
        {"model": "linear", **short},
        {"model": "mlp", **short},
        {"model": {"mlp": {"widths": [4]}}, **short},
        {"model": "linear", "data": {"digits": {"subset": 100}}, **short},
        {"model": "linear", **{**short, "epochs": 0}},
        {"model": "linear", "loss": "mse", **short},
        {"model": "linear", "seed": 1, **short},
        {"model": "linear", "input": {"normalize": "none"}, **short},
    ]
    folders = [sl.train(out=tmp_path, **call).folder for call in calls]
    assert len(set(folders)) == len(calls)
    assert [sl.train(out=tmp_path, **call).folder for call in calls] == folders
    assert max(len(folder.parent.name.encode()) for folder in folders) <= LONGEST


@pytest.mark.breadth(1)
@pytest.mark.parametrize("own", [True, False])
def test_a_run_of_an_earlier_version_goes_on_in_its_folder(own: bool, data: sl.Data, tmp_path: Path) -> None:
    """Version 0.3.0 called every run `run`."""
    given: Any = data if own else "digits"
    first = sl.train("linear", given, out=tmp_path, name="run", **OPTIONS)
    again = sl.train("linear", given, out=tmp_path, **OPTIONS)
    assert (again.folder, again.record) == (first.folder, first.record)
    assert sl.train("mlp", given, out=tmp_path, **OPTIONS).folder != first.folder
