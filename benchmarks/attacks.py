"""Attack speed, side by side in one process with torchattacks, foolbox and ART, on weights that
this benchmark trains itself.

    python benchmarks/attacks.py             # everything, about 40 minutes on two cores
    python benchmarks/attacks.py pgd         # PGD-40 of simple_cnn on 1,000 MNIST test images at three radii
    python benchmarks/attacks.py standard    # the protocol `standard` against torchattacks' AutoAttack
    python benchmarks/attacks.py standard 0  # its image passes alone, without the turns
    python benchmarks/attacks.py standard 0 20  # the same, of 20 images instead of 100
    python benchmarks/attacks.py curve       # eleven radii to 0.1, 0.15 and 0.3 against the largest
alone, and against one by one
    python benchmarks/attacks.py curve 0.15  # the same to 0.15 alone

The peers are optional (pip install torchattacks foolbox adversarial-robustness-toolbox, in an
environment of their own); those that are missing are left out. Each is given its best batch size.
The contestants take turns; medians are compared, answers too. `standard` also counts the images that
pass through the model, forward and backward, and the multiply-adds, which no machine changes.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.config.schema import Robustness
from stresslens.config.threat_model import resolve_threat_model
from stresslens.core import devices
from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.robustness.attack_batch import AttackBatch, verdict_model
from stresslens.robustness.autotune import autotune_attack
from stresslens.robustness.measure import measure

IMAGES = 1000
TURNS = 3
RADII = (0.1, 0.2, 0.3)
STEPS = 40
BATCHES = (64, 128, 256, 512, 1000)
FEW = 100
"""Images for AutoAttack, which takes over a second for each."""

T = TypeVar("T")
Attack = Callable[[float], np.ndarray]
"""A radius → (n,) which images are still answered right."""


@functools.cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """simple_cnn after two epochs of MNIST, and the first test images in file order."""
    data = registry.resolve("datasets", {"mnist": {"validation": 10000}})()
    with tempfile.TemporaryDirectory() as folder:
        model = sl.train("simple_cnn", data, epochs=2, out=folder).model()
    assert data.test is not None
    x = data.test.floats(data.test.images[:IMAGES])
    return model, x, data.test.labels[:IMAGES]


def survivors(model: nn.Module, x_adv: Tensor, y: Tensor) -> np.ndarray:
    with torch.no_grad():
        return (model(x_adv).argmax(1) == y).numpy()


def ours(model: nn.Module, x: Tensor, y: Tensor, protocol: Any, radii: Any) -> np.ndarray:
    """(n,) every image's smallest broken radius, by the engine."""
    threat = resolve_threat_model(Robustness(radii=radii, protocol=protocol, images="all"), base=Path.cwd())
    return measure(model, Split(x, y, 1.0), threat)[0].minimal_radius


def undropped(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> np.ndarray:
    """PGD as the engine runs it, except that no image is dropped."""
    bound = registry.resolve("attacks", {"pgd": {"steps": STEPS, "relative_step": 0.1}})
    with attacked(model):
        compute = autotune_attack(model, x, passes=1)
        search = AttackBatch(verdict_model(model), x, y, Ball("linf", eps), drop=False)
        with compute.active():
            search.attack_unbroken(bound, compute.model(model, x), Draws(0, torch.arange(len(x))), name="pgd")
    return (~search.is_adversarial).numpy()


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, batch: int, steps: int) -> Attack:
    torchattacks = importlib.import_module("torchattacks")

    def attack(eps: float) -> np.ndarray:
        pgd = torchattacks.PGD(model, eps=eps, alpha=eps / 10, steps=steps, random_start=True)
        return survivors(model, torch.cat([pgd(a, b) for a, b in zip(x.split(batch), y.split(batch))]), y)

    return attack


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, batch: int, steps: int) -> Attack:
    foolbox = importlib.import_module("foolbox")
    wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))

    def attack(eps: float) -> np.ndarray:
        pgd = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=steps, random_start=True)
        return survivors(
            model,
            torch.cat([pgd(wrapped, a, b, epsilons=eps)[1] for a, b in zip(x.split(batch), y.split(batch))]),
            y,
        )

    return attack


def art_pgd(model: nn.Module, x: Tensor, y: Tensor, batch: int, steps: int) -> Attack:
    estimators = importlib.import_module("art.estimators.classification")
    evasion = importlib.import_module("art.attacks.evasion")
    classifier = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )

    def attack(eps: float) -> np.ndarray:
        pgd = evasion.ProjectedGradientDescent(
            classifier,
            eps=eps,
            eps_step=eps / 10,
            max_iter=steps,
            num_random_init=1,
            batch_size=batch,
            verbose=False,
        )
        return survivors(model, torch.from_numpy(pgd.generate(x.numpy(), y.numpy())), y)

    return attack


PEERS = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd, "art": art_pgd}


def best_batch(make: Any, model: nn.Module, x: Tensor, y: Tensor) -> int:
    """The batch size at which five steps are quickest."""

    def seconds(batch: int) -> float:
        attack = make(model, x, y, batch, 5)
        attack(0.1)
        began = time.perf_counter()
        attack(0.1)
        return time.perf_counter() - began

    return min(BATCHES, key=seconds)


def take_turns(
    contestants: dict[str, Attack], eps: float, turns: int = TURNS
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Median seconds of each, and its last answer."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, np.ndarray] = {}
    for _ in range(turns):
        for name, attack in contestants.items():
            began = time.perf_counter()
            answers[name] = attack(eps)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}, answers


def available() -> dict[str, Any]:
    found = {}
    for name, make in PEERS.items():
        try:
            importlib.import_module(name)
            found[name] = make
        except ImportError:
            print(f"{name} is not installed; left out")
    return found


def pgd() -> None:
    model, x, y = trained()
    peers = available()
    batches = {name: best_batch(make, model, x, y) for name, make in peers.items()}
    contestants: dict[str, Attack] = {
        name: make(model, x, y, batches[name], STEPS) for name, make in peers.items()
    }
    contestants["stresslens"] = lambda eps: (
        ours(model, x, y, [{"pgd": {"steps": STEPS, "relative_step": 0.1}}], eps) > eps
    )
    contestants["stresslens, nothing dropped"] = lambda eps: undropped(model, x, y, eps)
    contestants["stresslens"](0.1)  # measures its steering once
    for eps in RADII:
        seconds, answers = take_turns(contestants, eps)
        fastest = min((seconds[name] for name in peers), default=float("nan"))
        print(
            f"\nPGD-{STEPS}, step ε/10, random start, ε = {eps}, n = {len(x)} images, median of {TURNS} turns"
        )
        for name in contestants:
            agree = (answers[name] == answers["stresslens"]).mean()
            batch = f", batch {batches[name]}" if name in batches else ""
            print(
                f"  {name + batch:32} {seconds[name]:6.2f} s   "
                f"{fastest / seconds[name]:5.2f}x the fastest peer   "
                f"{int(answers[name].sum()):4} robust, {100 * agree:.1f} % as stresslens"
            )


class Passes:
    """Counts, inside its context, the images that pass through the net's first convolution, forward
    and backward, and the multiply-adds of all convolutions and linear layers, both ways.

    It takes the place of torch.nn.functional's functions: copies of the model have no hooks, and a
    TorchDispatchMode takes several times as long as the attacks.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.first, self.size = next(p.shape for p in model.parameters() if p.ndim == 4), x.shape[2:]
        self.forward = self.backward = self.multiply_adds = 0

    def __enter__(self) -> Passes:
        self._own = F.conv2d, F.linear
        F.conv2d, F.linear = (functools.partial(self._counted, own) for own in self._own)
        return self

    def __exit__(self, *error: object) -> None:
        F.conv2d, F.linear = self._own

    def _counted(self, own: Callable[..., Tensor], x: Tensor, weight: Tensor, *more: Any) -> Tensor:
        found = own(x, weight, *more)
        images = len(x) * (weight.shape == self.first and x.shape[2:] == self.size)
        multiply_adds = found.numel() * weight[0].numel()
        self.forward += images
        self.multiply_adds += multiply_adds

        def back(gradient: Tensor) -> None:
            self.backward += images
            self.multiply_adds += multiply_adds

        if found.requires_grad:
            found.register_hook(back)
        return found


def passes(model: nn.Module, x: Tensor, attack: Callable[[], T]) -> tuple[Passes, T]:
    """What an attack on images x passes through the model, and its answer. No machine changes these
    numbers, once the precision of the search is chosen and kept; where it is not, the passes of that
    measurement count too."""
    with Passes(model, x) as counted:
        answer = attack()
    return counted, answer


def torchattacks_autoattack(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Attack:
    """AutoAttack, with so many steps of APGD, APGD-T and FAB."""
    torchattacks = importlib.import_module("torchattacks")

    def attack(eps: float) -> np.ndarray:
        search = torchattacks.AutoAttack(
            model, norm="Linf", eps=eps, version="standard", n_classes=10, seed=0
        )
        for part in search._autoattack.attacks:
            if hasattr(part, "steps"):
                part.steps = steps
        return survivors(model, search(x, y), y)

    return attack


def standard(turns: int = TURNS, images: int = FEW) -> None:
    model, x, y = trained()
    x, y, eps = x[:images], y[:images], 0.05
    contestants: dict[str, Attack] = {"stresslens": lambda eps: ours(model, x, y, "standard", eps) > eps}
    try:
        importlib.import_module("torchattacks")
    except ImportError:
        print("torchattacks is not installed; left out")
    else:
        for name, steps in (("AutoAttack as shipped, 10 steps", 10), ("AutoAttack, 100 steps", 100)):
            contestants[name] = torchattacks_autoattack(model, x, y, steps)
    alone, _ = passes(model, x, lambda: survivors(model, x, y))
    print(f"\nstandard, ε = {eps}, n = {images} images")
    for name, attack in contestants.items():
        count, answer = passes(model, x, functools.partial(attack, eps))
        whole = count.multiply_adds / alone.multiply_adds * images
        print(
            f"  {name:32} {count.forward:8,} images forward, {count.backward:8,} backward, "
            f"multiply-adds of {whole:10,.0f} forward; {int(answer.sum())} robust",
            flush=True,
        )
    if not turns:
        return
    seconds, answers = take_turns(contestants, eps, turns)
    print(f"  median of {turns} turns")
    for name in contestants:
        print(
            f"  {name:32} {seconds[name]:6.1f} s ({seconds[name] / seconds['stresslens']:.2f} times)   "
            f"{int(answers[name].sum())} robust, "
            f"{100 * (answers[name] == answers['stresslens']).mean():.1f} % as stresslens"
        )


def curve(*stops: float) -> None:
    model, x, y = trained()
    protocol = [{"pgd": {"steps": STEPS, "relative_step": 0.1}}, {"apgd": {"steps": 50}}]
    for stop in stops or (0.1, 0.15, 0.3):
        radii = [round(stop * i / 10, 4) for i in range(11)]
        began = time.perf_counter()
        whole = ours(model, x, y, protocol, radii)
        together = time.perf_counter() - began
        alone: list[float] = []
        robust = []
        for eps in radii[1:]:
            began = time.perf_counter()
            robust.append(int((ours(model, x, y, protocol, eps) > eps).sum()))
            alone.append(time.perf_counter() - began)
        print(
            f"\neleven radii to {stop}, n = {len(x)}, {int((whole > stop).sum())} survive the largest: "
            f"{together:.1f} s, {together / alone[-1]:.2f} times the largest alone ({alone[-1]:.1f} s), "
            f"{together / sum(alone):.2f} of one by one ({sum(alone):.1f} s)"
        )
        print(
            "  were only surviving dear, and each image to survive once, it would be "
            f"{(whole > 0).sum() / sum(robust):.2f} of it"
        )
        print("  robust, together: ", [int((whole > eps).sum()) for eps in radii[1:]])
        print("  robust, one by one:", robust)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    devices.keep_memory()
    parts: dict[str, Callable[..., None]] = {"pgd": pgd, "standard": standard, "curve": curve}
    names = [word for word in sys.argv[1:] if word in parts]
    numbers = [float(word) for word in sys.argv[1:] if word not in parts]
    for name in names or parts:
        parts[name](*(numbers if name == "curve" else map(int, numbers) if name == "standard" else ()))


if __name__ == "__main__":
    main()
