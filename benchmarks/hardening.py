"""Adversarial training with PGD, side by side in one process: the notebook's loop and stresslens,
at the same robust accuracy.

    python benchmarks/hardening.py           # about ten minutes on two cores
    python benchmarks/hardening.py quick     # the speed alone, without training to an accuracy

The notebook's loop has float32 tensors in memory and an attack written as the common libraries
write it: PGD in evaluation mode, each step a forward and a backward pass. Prints ratios with n. The
contestants take turns, so that a busy machine slows all of them; the median of the turns is
compared. Then both train for the same epochs, and PGD-40 attacks both on the same test images.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training import InMemory, in_turns, stresslens_steps, task_of, training_of

from stresslens.config.registry import resolve
from stresslens.core.attack_base import attacked, unwatched
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.metrics.intervals import wilson
from stresslens.training.autotune import compute_config
from stresslens.training.loop import fit
from stresslens.training.task import Task, load_data

EPS, STEPS, STEP_SIZE = 0.1, 7, 0.035
OBJECTIVE = {
    "adversarial": {"norm": "linf", "eps": EPS, "attack": {"pgd": {"steps": STEPS, "step_size": STEP_SIZE}}}
}
EPOCHS, IMAGES = 2, 1000
TURN_STEPS = {64: 10, 256: 3}


def perturbed(net: nn.Module, x: Tensor, y: Tensor, *, through_parameters: bool) -> Tensor:
    """PGD as notebooks have it; `through_parameters` calls backward, which takes every parameter's
    gradient too."""
    net.eval()
    criterion = nn.CrossEntropyLoss()
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1).detach()
    for _ in range(STEPS):
        x_adv.requires_grad = True
        cost = criterion(net(x_adv), y)
        if through_parameters:
            cost.backward()
            grad = x_adv.grad
        else:
            grad = torch.autograd.grad(cost, x_adv)[0]
        assert grad is not None
        x_adv = x_adv.detach() + STEP_SIZE * grad.sign()
        x_adv = (x + (x_adv - x).clamp(-EPS, EPS)).clamp(0, 1).detach()
    net.train()
    return x_adv


def plain_steps(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: InMemory,
    steps: int,
    *,
    through_parameters: bool,
) -> int:
    """The notebook's loop around the attack; returns the images it trained on."""
    images, criterion = 0, nn.CrossEntropyLoss()
    net.train()
    for step, (x, y) in enumerate(loader):
        if step == steps:
            break
        x_adv = perturbed(net, x, y, through_parameters=through_parameters)
        optimizer.zero_grad()
        loss = criterion(net(x_adv), y)
        loss.backward()
        optimizer.step()
        images += len(y)
        loss.item()
    return images


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.001)


def speed(model: Any, size: int, folder: Path) -> None:
    chosen = task_of(model, size, folder / "auto", objective=OBJECTIVE)
    narrow = task_of(model, size, folder / "float32", objective=OBJECTIVE, precision="float32")
    data, steps = load_data(chosen), TURN_STEPS[size]
    loader = InMemory(data.train.floats(data.train.images), data.train.labels, size)
    nets = [training_of(narrow).model.get_submodule("net") for _ in range(2)]
    optimizers = [adam(net) for net in nets]
    ours, ours_narrow = training_of(chosen), training_of(narrow)
    rates = in_turns(
        {
            "notebook, backward": lambda: plain_steps(
                nets[0], optimizers[0], loader, steps, through_parameters=True
            ),
            "notebook, autograd.grad": lambda: plain_steps(
                nets[1], optimizers[1], loader, steps, through_parameters=False
            ),
            "stresslens float32": lambda: stresslens_steps(ours_narrow, steps),
            "stresslens": lambda: stresslens_steps(ours, steps),
        }
    )
    print(
        f"\n{model}, batch {size}, PGD-{STEPS}, {torch.get_num_threads()} threads; median of n = 5 turns of "
        f"{steps} steps"
    )
    for name, rate in rates.items():
        way = compute_config(chosen)
        detail = (
            f"  ({way.precision}, {way.memory_format}, {way.threads} threads)" if name == "stresslens" else ""
        )
        first, second = rates["notebook, backward"], rates["notebook, autograd.grad"]
        print(
            f"  {name:24} {rate:8.0f} images/s   {rate / first:5.2f} × backward   "
            f"{rate / second:5.2f} × autograd.grad{detail}"
        )


def robust(model: nn.Module, task: Task) -> str:
    """Accuracy under PGD-40 of half-radius-over-ten steps, on the first `IMAGES` test images, in float32."""
    data = load_data(task)
    assert data.test is not None
    x, y = data.test.floats(data.test.images[:IMAGES]), data.test.labels[:IMAGES]
    attack, right, clean = resolve("attacks", {"pgd": {"steps": 40}}), 0, 0
    with attacked(model), torch.no_grad():
        for rows in torch.arange(IMAGES).split(250):
            found = attack(
                model=model,
                x=x[rows],
                y=y[rows],
                ball=Ball("linf", EPS),
                draws=Draws(0, rows),
                watch=unwatched,
            )
            right += int((model(found).argmax(1) == y[rows]).sum())
            clean += int((model(x[rows]).argmax(1) == y[rows]).sum())
    return f"clean {_share(clean)}, PGD-40 {_share(right)}"


def _share(right: int) -> str:
    found = wilson(right, IMAGES)
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}, n = {found.n})"


def accuracy(model: Any, size: int, folder: Path) -> None:
    """Both trained for the same epochs."""
    import time

    task = task_of(
        model, size, folder / "trained", objective=OBJECTIVE, epochs=EPOCHS, select="last", watch=[]
    )
    data = load_data(task)
    ours = training_of(task)
    net = training_of(task_of(model, size, folder / "plain", precision="float32")).model.get_submodule("net")
    optimizer = adam(net)
    loader = InMemory(data.train.floats(data.train.images), data.train.labels, size)
    torch.manual_seed(0)
    start = time.perf_counter()
    for _ in range(EPOCHS):
        plain_steps(net, optimizer, loader, len(data.train), through_parameters=True)
    plain = time.perf_counter() - start
    start = time.perf_counter()
    fit(ours)
    seconds = time.perf_counter() - start
    print(f"\n{model}, batch {size}, {EPOCHS} epochs of {len(data.train)} images (n = 1 training each)")
    print(f"  notebook    {plain:6.1f} s   {robust(net, task)}")
    print(
        f"  stresslens  {seconds:6.1f} s   {robust(ours.model.float(), task)}   ratio {plain / seconds:.2f}"
    )


def main(quick: bool) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    folder = Path(tempfile.mkdtemp())
    for model, size in (("simple_cnn", 64), ("simple_cnn", 256), ({"mlp": {"widths": [1024, 1024]}}, 256)):
        place = folder / f"{size}-{len(str(model))}"
        speed(model, size, place)
        if not quick:
            accuracy(model, size, place)


if __name__ == "__main__":
    main("quick" in sys.argv[1:])
