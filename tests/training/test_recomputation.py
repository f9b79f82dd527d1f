"""Activations that are computed again: the gradients and the state of a pass that keeps them all, in less
memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from trainings import lines, same_bits_after_a_stop, weights

import stresslens as sl
from stresslens.core import devices
from stresslens.core.errors import ConfigError, Notice, StresslensError
from stresslens.core.layers import Dropout
from stresslens.core.run_folder import RunFolder
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.models.preact_resnet import preact_resnet
from stresslens.plugins.models.vit import vit
from stresslens.study import stages
from stresslens.training import autotune as autotuning
from stresslens.training import pass_choice
from stresslens.training.recomputation import Recomputation
from stresslens.training.task import Task

Make = Callable[..., Task]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), Dropout(0.3)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def residual() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(Residual(8), Residual(8), Residual(8)), *head)


def plain() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True), nn.Dropout(0.2, inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def spectral() -> nn.Module:
    def layer() -> nn.Module:
        return nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3, padding=1))

    return nn.Sequential(
        *(nn.Sequential(layer(), nn.ReLU()) for _ in range(3)), nn.Flatten(), nn.Linear(432, 4)
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "residual blocks": residual,
    "plain layers": plain,
    "spectral norm": spectral,
    "vit": lambda: vit((3, 12, 12), 4, patch=4, width=16, depth=3, heads=2, mlp=16, dropout=0.1),
    "preact_resnet": lambda: preact_resnet((3, 12, 12), 4, width=4),
    "torchvision resnet18": lambda: torchvision().models.resnet18(num_classes=4),
    "torchvision convnext_tiny": lambda: torchvision().models.convnext_tiny(num_classes=4),
    "torchvision swin_t": lambda: torchvision().models.swin_t(num_classes=4),
    "torchvision densenet121": lambda: torchvision().models.densenet121(num_classes=4),
}


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Adds up what is kept for the backward pass."""
    total = [0]

    def keep(tensor: Tensor) -> Tensor:
        total[0] += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def passed(net: nn.Module, x: Tensor, around: Any) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Gradients of parameters and images, buffers, and the random state, after two steps."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    for k in range(2):
        with around():
            output = net(x * (1 + k))
        output.square().mean().backward()
    gradients = [p.grad for p in [*net.parameters(), x] if p.grad is not None]
    return gradients, [b.clone() for b in net.buffers()], torch.get_rng_state()


@pytest.mark.breadth(5)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_statistics_and_random_numbers_are_the_same_bits(name: str, mode: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().train(mode == "train")
    again = copy.deepcopy(net)
    side = 64 if name.startswith("torchvision") else 12
    x = torch.rand(2, 3, side, side)
    way = Recomputation(again)
    expected, found = passed(net, x, torch.enable_grad), passed(again, x, way.active)
    for mine, theirs in zip(expected[0], found[0], strict=True):
        assert mine.equal(theirs)
    for mine, theirs in zip(expected[1], found[1], strict=True):
        assert mine.equal(theirs)
    assert expected[2].equal(found[2])
    assert not any("forward" in vars(module) for module in again.modules())
    assert all(module._compiled_call_impl is None for module in again.modules())


@pytest.mark.parametrize("name", ["residual blocks", "plain layers", "vit", "preact_resnet"])
def test_less_is_kept_for_the_backward_pass(name: str) -> None:
    net = NETS[name]()
    x = torch.rand(8, 3, 12, 12)
    with saved_bytes() as kept:
        net(x)
    with saved_bytes() as less, Recomputation(net).active():
        net(x)
    assert less[0] < 0.75 * kept[0]


def test_running_statistics_are_those_of_one_pass_in_closed_form() -> None:
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    norm = net[0]
    with Recomputation(net).active():
        net(torch.tensor([[1.0], [3.0]])).sum().backward()
    assert norm.num_batches_tracked == 1
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.2, 0.9 + 0.1 * 2))


def test_a_block_that_writes_into_what_it_is_given_is_refused() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.mul_(2))  # type: ignore[no-any-return]

    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Writes(), Writes(), Writes()))
    with Recomputation(net).active(), pytest.raises(ConfigError, match="writes into what it is given"):
        net(torch.rand(2, 4))


def test_a_net_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no sequence of blocks"):
        Recomputation(nn.Linear(3, 2))


CNN = {"simple_cnn": {"channels": 4, "hidden": 16, "batch_norm": True}}


@pytest.mark.parametrize(
    "train", [{}, {"objective": {"adversarial": {"eps": 0.1}}, "accumulate": 2}, {"precision": "bfloat16"}]
)
def test_a_training_has_the_same_bits(task_of: Make, tmp_path: Path, train: dict[str, Any]) -> None:
    kept, again = (
        task_of(CNN, folder=tmp_path / str(on), recompute=on, epochs=2, **train) for on in (False, True)
    )
    for task in (kept, again):
        stages.carry_out(task)
    assert lines(kept) == lines(again)
    assert all(value.equal(weights(again)[name]) for name, value in weights(kept).items())
    recorded = [RunFolder(task.folder).config.read_text() for task in (kept, again)]
    assert ["recompute: true" in text for text in recorded] == [False, True]
    assert "compile" not in recorded[0]
    environment = yaml.safe_load(RunFolder(again.folder).environment.read_text())
    assert environment["recompute"] is True


def test_stopped_and_resumed_gives_the_same_bits(task_of: Make, tmp_path: Path) -> None:
    whole, stopped = (task_of(CNN, folder=tmp_path / name, recompute=True) for name in ("whole", "stopped"))
    same_bits_after_a_stop(whole, stopped, 2)


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(autotuning, "_suggestions", {})


NET = {"simple_cnn": {"channels": 64}}


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(("share", "short"), [(0.5, False), (0.9, True)])
def test_auto_is_on_where_a_batch_does_not_fit(
    share: float, short: bool, task_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(pass_choice, "total_memory", lambda device: seen.append(1) or 2**50)
    task_of(NET, batch_size=120)
    assert seen
    sized = pass_choice.StepSize.of

    def of(*args: Any) -> pass_choice.StepSize:
        size = sized(*args)
        assert 120 * 4 * 64 * 64 < size.memory < 1e9
        return pass_choice.StepSize(size.operations, share * 1e9)

    monkeypatch.setattr(pass_choice.StepSize, "of", of)
    monkeypatch.setattr(pass_choice, "total_memory", lambda device: 10**9)
    monkeypatch.setattr(autotuning, "_suggestions", {})
    if short:
        with pytest.warns(Notice, match=r"a batch needs about 0.9 GB of the 1.0 GB of cpu"):
            task = task_of(NET, batch_size=120)
    else:
        task = task_of(NET, batch_size=120)
    assert task.compute is not None
    assert task.compute.recompute is short


def test_memory_that_runs_out_in_training_is_told(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, batch: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr("stresslens.training.batch_loss.BatchLoss.__call__", fails)
    with pytest.raises(StresslensError, match=r"lower train.batch_size .*, or set train.recompute: true"):
        sl.train("linear", small, epochs=1, out=tmp_path)


def test_the_memory_of_the_machine_is_told() -> None:
    assert (devices.total_memory("cpu") or 0) > 2**28
