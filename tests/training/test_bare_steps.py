"""Steps of torch's optimizers without their wrappers: the same bits, no import of torch's compiler, and
nobody's hook left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from stresslens.config.study_file import read_study
from stresslens.study.pipeline import run
from stresslens.training.bare_steps import bare_step

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.1, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1, amsgrad=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.1),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, 0.1),
    "adadelta": lambda parameters: torch.optim.Adadelta(parameters, 0.1),
}


def trained(name: str, *, bare: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[name](net.parameters())
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    step = bare_step(optimizer) if bare else optimizer.step
    assert bare == (getattr(step, "__qualname__", "").startswith("bare_step"))
    for _ in range(5):
        net(torch.rand(4, 3)).square().sum().backward()
        step()
        schedule.step()
        for parameter in net.parameters():
            parameter.grad = None
    return list(net.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bare_step_has_the_bits_of_the_wrapped_one(name: str) -> None:
    assert all(map(torch.equal, trained(name, bare=False), trained(name, bare=True)))


def test_a_step_with_a_hook_or_of_another_class_is_left_as_it_is() -> None:
    class Own(torch.optim.SGD):
        pass

    parameters = list(nn.Linear(3, 2).parameters())
    own, hooked, replaced = (
        Own(parameters, 0.1),
        torch.optim.SGD(parameters, 0.1),
        OPTIMIZERS["adam"](parameters),
    )
    calls: list[str] = []
    hooked.register_step_post_hook(lambda *_: calls.append("hook"))
    replaced.step = lambda closure=None: calls.append("replaced")  # type: ignore[method-assign]
    for optimizer in (own, hooked, replaced):
        assert bare_step(optimizer) == optimizer.step
        bare_step(optimizer)()
    assert calls == ["hook", "replaced"]


def test_a_gradient_through_the_step_is_kept() -> None:
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), 0.1, differentiable=True)
    assert bare_step(optimizer) == optimizer.step


def test_an_optimizer_is_made_and_saved_without_the_compiler_which_is_kept_out_again_afterwards() -> None:
    code = (
        "import sys, torch\n"
        "from stresslens.training.bare_steps import without_import\n"
        "with without_import():\n"
        "    optimizer = torch.optim.Adam(torch.nn.Linear(3, 2).parameters())\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)\n"
        "optimizer.state_dict()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


HEAVY = ("torch._dynamo", "sklearn.utils", "scipy.stats", "pandas", "matplotlib", "sympy")


def test_a_small_training_and_its_report_import_nothing_that_takes_long(tmp_path: Path) -> None:
    """What the quickstart does, in a process of its own, once the data check of the images is kept."""
    study = tmp_path / "small.yaml"
    study.write_text(
        "data: digits\ntrain: {epochs: 1, optimizer: adam}\nruns: {a: {model: linear}, b: {model: mlp}}\n"
        "repeats: 2\n"
    )
    run(read_study(study), out=tmp_path / "first")
    code = (
        "import sys; from pathlib import Path; from stresslens.config.study_file import read_study; "
        "from stresslens.study.pipeline import run; "
        f"run(read_study(Path({str(study)!r})), out=Path({str(tmp_path)!r})); "
        f"print([each for each in {HEAVY} if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
