"""Runs that train in one program."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from trainings import lines, training_of

from stresslens.core.errors import ConfigError, Stopped, TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.training.joint_step import JointStep
from stresslens.training.loop import Training, fit
from stresslens.training.stack import Stack, fit_together
from stresslens.training.stacked_net import stacked_logits, without_stacked_form
from stresslens.training.task import Task

Make = Callable[..., Task]
MLP = {"mlp": {"widths": [12]}}
number = itertools.count()


def trainings(task_of: Make, base: Path, changes: Sequence[dict[str, Any]], **train: Any) -> list[Training]:
    """A training for each of the changes; each has another seed."""
    base = base / str(next(number))
    model = train.pop("model", MLP)
    return [
        training_of(
            task_of(model, folder=base / str(k), seed=k, **{"batch_size": 32, "lr": 0.01, **train, **change})
        )
        for k, change in enumerate(changes)
    ]


def weights(t: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in t.chosen().items()}


def logged(t: Training) -> list[dict[str, Any]]:
    return t.folder.read_lines(t.folder.metrics)


def assert_as_one_by_one(together: list[Training], alone: list[Training]) -> None:
    for t in alone:
        fit(t)
    stack = Stack(together)
    fit_together(stack)
    assert not stack.errors
    for one, other in zip(together, alone):
        for name, value in other.chosen().items():
            torch.testing.assert_close(one.chosen()[name], value, rtol=2e-3, atol=2e-4)
        found, expected = logged(one), logged(other)
        assert [line["epoch"] for line in found] == [line["epoch"] for line in expected]
        for ours, theirs in zip(found, expected):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
            assert ours["lr"] == theirs["lr"]
        assert one.state.updates == other.state.updates
        assert one.chosen_epoch == other.chosen_epoch


@pytest.mark.breadth
@pytest.mark.parametrize("model", ["linear", MLP, {"mlp": {"widths": [9, 7]}}])
@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": {"momentum": {"weight_decay": 0.01}}, "schedule": "cosine"},
        {"optimizer": "adamw", "schedule": {"warmup": {"share": 0.3}}, "clip": 0.1},
        {"optimizer": "rmsprop", "lr": 0.001, "schedule": "one_cycle"},
        {"optimizer": "torch.optim:NAdam", "ema": 0.9},
        {"loss": {"cross_entropy": {"smoothing": 0.1}}, "swa": 0.3},
        {"loss": "mse", "optimizer": "nesterov", "balance": "weights"},
        {"augment": [{"crop": {"padding": 1}}, "mixup"], "batch_size": 20},
        {"accumulate": 3, "replay": 2, "clip": 1.0},
        {"batch_size": "full", "optimizer": "sgd"},
        {"balance": "sampling", "shuffle": True},
    ],
    ids=str,
)
def test_figures_are_those_of_runs_one_by_one(
    task_of: Make, tmp_path: Path, model: Any, train: dict[str, Any]
) -> None:
    changes = [{}, {}, {"lr": 0.003}]
    together, alone = (trainings(task_of, tmp_path, changes, model=model, **train) for _ in range(2))
    assert_as_one_by_one(together, alone)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.integers(1, 4),
    batch=st.integers(1, 70),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=2),
    lr=st.floats(1e-4, 0.02),
    accumulate=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_small_setting_gives_the_figures_of_one_by_one(
    task_of: Make,
    tmp_path: Path,
    runs: int,
    batch: int,
    widths: list[int],
    lr: float,
    accumulate: int,
    seed: int,
) -> None:
    changes = [{"lr": lr * (k + 1)} for k in range(runs)]
    settings = {"model": {"mlp": {"widths": widths}}, "batch_size": batch, "accumulate": accumulate}
    together, alone = (
        trainings(task_of, tmp_path, changes, epochs=1, optimizer="sgd", **settings) for _ in range(2)
    )
    for t in (*together, *alone):
        t.seed += seed
    assert_as_one_by_one(together, alone)


@pytest.mark.parametrize("batch", [32, 50, 300])
def test_the_bits_do_not_depend_on_the_other_runs(task_of: Make, tmp_path: Path, batch: int) -> None:
    found = []
    for count in (1, 2, 5):
        runs = trainings(task_of, tmp_path, [{}] * count, batch_size=batch)
        fit_together(Stack(runs))
        found.append((weights(runs[0]), logged(runs[0])))
    for values, log in found[1:]:
        assert all(value.equal(found[0][0][name]) for name, value in values.items())
        assert log == found[0][1]


def test_without_the_same_bits_each_run_is_computed_with_itself(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = trainings(task_of, tmp_path, [{}])
    fit_together(Stack(lone))
    monkeypatch.setattr(Stack, "_together", lambda self, batch: Stack._apart(self, batch) * (1 + 1e-6))
    runs = trainings(task_of, tmp_path, [{}, {}, {}])
    stack = Stack(runs)
    fit_together(stack)
    assert not any(stack.as_one.values())
    assert all(value.equal(weights(lone[0])[name]) for name, value in weights(runs[0]).items())


def test_bits_are_compared_for_every_size_of_a_batch(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the last batch of an epoch, which is smaller, has other bits in one call."""
    lone = trainings(task_of, tmp_path, [{}])
    whole = lone[0].batch_size
    last = len(lone[0].data.train) % whole
    assert last
    fit_together(Stack(lone))
    honest = Stack._together

    def other_bits(self: Stack, batch: Any) -> torch.Tensor:
        return honest(self, batch) * (1 if batch.y.shape[1] == whole else 1 + 1e-6)

    monkeypatch.setattr(Stack, "_together", other_bits)
    runs = trainings(task_of, tmp_path, [{}, {}, {}])
    stack = Stack(runs)
    fit_together(stack)
    assert stack.as_one == {whole: True, last: False}
    assert all(value.equal(weights(lone[0])[name]) for name, value in weights(runs[0]).items())
    assert logged(runs[0]) == logged(lone[0])


def test_a_training_that_has_begun_is_not_refused_for_the_rounding_of_small_gradients(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = trainings(task_of, tmp_path, [{}, {}])
    for t in runs:
        t.until = 1
    fit_together(Stack(runs))
    for t in runs:
        t.until = 3
    monkeypatch.setattr("stresslens.training.stack.TOLERANCE", 0.0)  # any rounding is too much
    monkeypatch.setattr(Stack, "_apart", lambda self, batch: Stack._together(self, batch) * (1 + 1e-6))
    fit_together(Stack(runs))
    assert [t.state.epoch for t in runs] == [3, 3]


def test_another_gradient_is_refused(task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stack._losses
    monkeypatch.setattr(Stack, "_losses", lambda self, *given: 1.1 * honest(self, *given))
    with pytest.raises(ConfigError, match=r"train\.stack: another gradient"):
        fit_together(Stack(trainings(task_of, tmp_path, [{}, {}])))


def test_a_loss_that_draws_from_the_common_generator_is_refused(task_of: Make, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import torch\n"
        "def loss(logits, y):\n"
        "    noise = 1e-6 * torch.randn_like(logits)\n"
        "    return torch.nn.functional.cross_entropy(logits + noise, y)\n"
    )
    runs = trainings(task_of, tmp_path, [{}, {}], loss="noisy.py:loss")
    with pytest.raises(ConfigError, match=r"train\.stack: the loss draws numbers from torch's generator"):
        fit_together(Stack(runs))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_diverges_leaves_the_others_as_they_are(
    task_of: Make, tmp_path: Path, accumulate: int
) -> None:
    wild = {"lr": 1e30}
    plain: dict[str, Any] = {"optimizer": "sgd", "accumulate": accumulate}
    runs = trainings(task_of, tmp_path, [{}, wild, {}], **plain)
    stack = Stack(runs)
    fit_together(stack)
    assert [*stack.errors] == [runs[1]]
    assert isinstance(stack.errors[runs[1]], TrainingDiverged)
    alone = trainings(task_of, tmp_path, [{}, wild, {}], **plain)
    with pytest.raises(TrainingDiverged) as expected:
        fit(alone[1])
    assert stack.errors[runs[1]].images == expected.value.images  # type: ignore[attr-defined]
    for k in (0, 2):
        lone = trainings(task_of, tmp_path, [{}] * (k + 1), **plain)[k]
        fit_together(Stack([lone]))
        assert all(value.equal(weights(lone)[name]) for name, value in weights(runs[k]).items())


def test_a_stack_on_a_gpu_stops_at_a_gradient_that_is_not_finite(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a stack do not read their losses late, as other trainings on a GPU do."""
    monkeypatch.setattr("stresslens.training.loop.reads_late", lambda *given: True)
    changes = [{"lr": 0.01}, {"lr": 0.02}]
    together = trainings(task_of, tmp_path, changes, optimizer="sgd", clip=0.5, stack=True)
    expected = trainings(task_of, tmp_path, changes, optimizer="sgd", clip=0.5)
    fit_together(Stack(together[:1]))
    for t in expected:
        t.late, t.gradients.late = None, False
    fit(expected[0])
    for name, value in weights(expected[0]).items():
        torch.testing.assert_close(weights(together[0])[name], value, rtol=2e-3, atol=2e-4)

    broken = Stack(together[1:])
    before = weights(together[1])
    assert broken.begin_epoch()
    batch = next(iter(broken.batches()))
    losses = broken.losses(batch)
    broken.backward(losses)
    next(iter(broken.stacked.values())).grad.fill_(math.inf)  # type: ignore[union-attr]
    broken.check(losses, batch)
    broken.optimizer_step()
    assert isinstance(broken.errors[together[1]], TrainingDiverged)
    assert all(value.equal(before[name]) for name, value in weights(together[1]).items())


def test_a_run_that_stops_early_leaves_the_others(task_of: Make, tmp_path: Path) -> None:
    changes = [{}, {"stop": {"loss_change": 10.0}}, {"epochs": 2}]
    together, alone = (trainings(task_of, tmp_path, changes, epochs=5) for _ in range(2))
    assert_as_one_by_one(together, alone)
    assert together[1].state.stopped
    assert [t.state.epoch for t in together] == [5, alone[1].state.epoch, 2]
    assert together[1].state.epoch < 5
    states = [RunFolder(t.folder.path).load_checkpoint()[0] for t in together]
    assert [state["position"]["epoch"] for state in states if state] == [t.state.epoch for t in together]


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "schedule": "cosine"}, {"accumulate": 2}], ids=str)
def test_stopped_and_resumed_gives_the_same_bits(
    task_of: Make, tmp_path: Path, train: dict[str, Any]
) -> None:
    whole = trainings(task_of, tmp_path, [{}, {}, {}], **train)
    fit_together(Stack(whole))
    runs = trainings(task_of, tmp_path, [{}, {}, {}], **train)
    signals: list[int] = []

    for t in runs:
        t.signals = signals
    stack, steps = Stack(runs), itertools.count()
    count = stack.count
    stack.count = lambda batch: (count(batch), next(steps) == 4 and signals.append(signal.SIGTERM))[0]  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        fit_together(stack)
    places, again = set(), []
    for k, t in enumerate(runs):
        folder = RunFolder(t.folder.path)
        state, _ = folder.load_checkpoint()
        assert state is not None
        places.add((state["position"]["epoch"], state["position"]["step"]))
        fresh = training_of(
            task_of(MLP, folder=t.folder.path, seed=k, **{"batch_size": 32, "lr": 0.01, **train})
        )
        fresh.checkpointer.restore(state)
        fresh.checkpointer.cut_logs()
        again.append(fresh)
    assert len(places) == 1
    fit_together(Stack(again[:2]))  # in another company
    fit_together(Stack(again[2:]))
    for one, other in zip(again, whole):
        assert all(value.equal(weights(other)[name]) for name, value in weights(one).items())
        assert logged(one) == logged(other)


def test_a_checkpoint_holds_its_own_run_alone(task_of: Make, tmp_path: Path) -> None:
    sizes = []
    for count in (1, 8):
        runs = trainings(task_of, tmp_path, [{}] * count, epochs=1)
        fit_together(Stack(runs))
        sizes.append(runs[0].folder.checkpoint.stat().st_size)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda p, lr: torch.optim.Adam(p, lr, fused=True),
        lambda p, lr: torch.optim.AdamW(p, lr, amsgrad=True),
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
        lambda p, lr: torch.optim.RMSprop(p, lr, foreach=True),
        lambda p, lr: torch.optim.Adagrad(p, lr),
    ],
)
def test_a_joint_step_gives_each_optimizer_its_own_bits(make: Any) -> None:
    def nets() -> list[nn.Linear]:
        torch.manual_seed(0)
        return [nn.Linear(5, 3) for _ in range(4)]

    joint, alone = nets(), nets()
    rates = [0.1, 0.1, 0.02, 0.1]
    steps = [make(net.parameters(), lr) for net, lr in zip(joint, rates)]
    others = [make(net.parameters(), lr) for net, lr in zip(alone, rates)]
    step = JointStep(steps)
    for k in range(5):
        for net, other in zip(joint, alone):
            for p, q in zip(net.parameters(), other.parameters()):
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
        if k == 3:  # as a schedule does
            steps[0].param_groups[0]["lr"] = others[0].param_groups[0]["lr"] = 0.5
        step.step()
        for optimizer in others:
            optimizer.step()
    for net, other, ours, theirs in zip(joint, alone, steps, others):
        assert all(p.equal(q) for p, q in zip(net.parameters(), other.parameters()))
        one, two = ours.state_dict()["state"], theirs.state_dict()["state"]
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k][name], two[k][name]) for k in one for name in two[k])


def test_stacked_logits_are_those_of_each_net() -> None:
    nets = [
        nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 4, bias=False), nn.GELU()), nn.Linear(4, 3))
        for _ in range(3)
    ]
    parameters = {
        name: torch.stack([dict(net.named_parameters())[name] for net in nets])
        for name, _ in nets[0].named_parameters()
    }
    x = torch.randn(3, 5, 1, 2, 3)
    found = stacked_logits(nets[0], parameters, x)
    torch.testing.assert_close(found, torch.stack([net(of) for net, of in zip(nets, x)]))
    assert not without_stacked_form(nets[0])


def test_a_run_alone_is_computed_as_in_a_stack(task_of: Make) -> None:
    from stresslens.study import stages

    task = task_of(MLP, stack=True)
    stages.carry_out(task)
    assert math.isfinite(lines(task)[-1]["loss"])
    assert "stack" not in task_of(MLP, folder=task.folder.with_name("seed-1")).plan.configuration["train"]
