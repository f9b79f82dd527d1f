"""Do our attacks find what the peers' find? The same models, images, radii, steps and start, image by image.

    python benchmarks/agreement.py mnist             # PGD-40 against torchattacks, foolbox and ART;
1,000 images, ε = .1, .2, .3
    python benchmarks/agreement.py mnist standard    # APGD-CE, APGD-T, FAB, Square against
torchattacks' AutoAttack
    python benchmarks/agreement.py FOLDER            # the same on colour photographs (train/ and
test/ of a folder per class)
    python benchmarks/agreement.py mnist standard 100 0.05       # that many images, these radii

The peers (pip install torchattacks foolbox adversarial-robustness-toolbox) are imported when they
are met; one that is missing is told and left out. Trains simple_cnn for two epochs itself, kept
below runs/agreement. Prints robust accuracy as counts with n, how many images either side alone
breaks, and seconds on one thread after the other.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.attack_base import attacked, unwatched
from stresslens.core.ball import Ball, parse_radius
from stresslens.core.draws import Draws
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.finished_run import data_of
from stresslens.robustness.attack_batch import AttackBatch, verdict_model

Attacked = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
STEPS = 40
BATCH = 250


@dataclass(frozen=True)
class Case:
    """A trained model in evaluation mode, and test images that it answers right."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    n: int

    @staticmethod
    def of(where: str, n: int) -> Case:
        data = where if where == "mnist" else {"folder": {"path": where}}
        name = Path(where).name
        run = sl.train(
            "simple_cnn",
            data,
            out="runs/agreement",
            name=name,
            epochs=2,
            batch_size=128,
            optimizer="adam",
            lr=1e-3,
        )
        test = data_of(RunFolder(run.folder)).splits["test"]
        some = torch.linspace(0, len(test) - 1, n).long()
        x, y = test.floats(test.images[some]), test.labels[some]
        model = run.model()
        with torch.no_grad():
            right = torch.cat([model(part) for part in x.split(BATCH)]).argmax(1) == y
        return Case(name, model, x[right], y[right], n)


def broken(case: Case, x_adv: Tensor, eps: float) -> Tensor:
    """(m,) what holds in float32, in ball and box, whoever made it."""
    x_adv = x_adv.detach().float()
    with torch.no_grad():
        guess = torch.cat([case.model(part) for part in x_adv.split(BATCH)]).argmax(1)
    return (guess != case.y) & Ball("linf", eps).holds(x_adv, case.x)


def ours(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    attack = registry.resolve(
        "attacks", {"pgd": {"steps": STEPS, "step_size": eps / 10, "random_start": False}}
    )
    with attacked(model):
        return attack(
            model=model,
            x=x,
            y=y,
            ball=Ball("linf", eps),
            draws=Draws(0, torch.arange(len(x))),
            watch=unwatched,
        )


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import torchattacks as peer

    return peer.PGD(model, eps=eps, alpha=eps / 10, steps=STEPS, random_start=False)(x, y)


def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import foolbox as peer

    attack = peer.attacks.LinfPGD(abs_stepsize=eps / 10, steps=STEPS, random_start=False)
    return attack(peer.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=eps)[1]


def art(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        model, loss=loss, input_shape=tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1)
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm="inf",
        eps=eps,
        eps_step=eps / 10,
        max_iter=STEPS,
        num_random_init=0,
        batch_size=BATCH,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """As it is shipped: ten steps of APGD, APGD-T and FAB where the published protocol has a hundred."""
    return _autoattack(model, x, y, eps, None)


def autoattack_100(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return _autoattack(model, x, y, eps, 100)


def _autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int | None) -> Tensor:
    import torchattacks as peer

    whole = peer.AutoAttack(model, norm="Linf", eps=eps, version="standard", n_classes=10, seed=0)
    for attack in whole._autoattack.attacks:
        if steps is not None and hasattr(attack, "steps"):
            attack.steps = steps
    return whole(x, y)


def in_batches(attack: Attacked) -> Attacked:
    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return torch.cat([attack(model, a, b, eps) for a, b in zip(x.split(BATCH), y.split(BATCH))])

    return run


def timed(attack: Attacked, case: Case, eps: float) -> tuple[Tensor, float] | None:
    began = time.perf_counter()
    try:
        x_adv = attack(case.model, case.x, case.y, eps)
    except ImportError as error:
        print(
            f"  {attack.__name__} left out: {error} (pip install torchattacks foolbox "
            "adversarial-robustness-toolbox)"
        )
        return None
    seconds = time.perf_counter() - began
    return broken(case, x_adv, eps), seconds


def row(case: Case, label: str, theirs: Tensor, ours: Tensor, seconds: float) -> None:
    robust, own = int((~theirs).sum()), int((~ours).sum())
    print(
        f"  {label:24} robust {robust:4} of {case.n}; ours {own:4} ({own - robust:+d});"
        f" broken by ours alone {int((ours & ~theirs).sum())}, by theirs alone {int((theirs & ~ours).sum())};"
        f" same verdict {float((ours == theirs).float().mean()):.4f}; {seconds:.1f} s",
        flush=True,
    )


def pgd(case: Case, radii: list[float]) -> None:
    for eps in radii:
        found = timed(in_batches(ours), case, eps)
        assert found is not None
        mine, seconds = found
        print(f"{case.name}, PGD-{STEPS}, linf ε = {eps:.4f}, α = ε/10, from the image; ours {seconds:.1f} s")
        for peer in (torchattacks, foolbox, art):
            result = timed(in_batches(peer) if peer is not art else peer, case, eps)
            if result is not None:
                row(case, peer.__name__, result[0], mine, result[1])


def attempts() -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    yield "apgd ce", {"apgd": {"loss": "ce"}}
    yield "apgd auto", {"apgd": {}}
    yield "fab", {"fab": {}}
    yield "square", {"square": {}}


def standard(case: Case, radii: list[float]) -> None:
    for eps in radii:
        with attacked(case.model):
            search = AttackBatch(verdict_model(case.model), case.x, case.y, Ball("linf", eps))
            parts = []
            for label, attack in attempts():
                trace, _ = search.attack_unbroken(
                    registry.resolve("attacks", attack),
                    case.model,
                    Draws(0, torch.arange(len(case.x))),
                    name=label,
                )
                parts.append(f"{label} breaks {trace.broke} of {trace.n} in {trace.seconds:.1f} s")
        print(f"{case.name}, standard, linf ε = {eps:.4f}; ours: {'; '.join(parts)}", flush=True)
        for label, peer in {
            "AutoAttack, shipped": autoattack,
            "AutoAttack, 100 steps": autoattack_100,
        }.items():
            result = timed(peer, case, eps)
            if result is not None:
                row(case, label, result[0], search.broken, result[1])


def main() -> None:
    warnings.simplefilter("ignore")
    where, *rest = sys.argv[1:]
    mnist, whole = where == "mnist", rest[:1] == ["standard"]
    numbers = rest[1:] if whole else rest
    n = int(numbers[0]) if numbers else 250 if whole else 1000 if mnist else 500
    usual = ([0.05, 0.075, 0.1] if whole else [0.1, 0.2, 0.3]) if mnist else [2 / 255, 4 / 255]
    (standard if whole else pgd)(Case.of(where, n), [parse_radius(text) for text in numbers[1:]] or usual)


if __name__ == "__main__":
    main()
