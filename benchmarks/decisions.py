"""Decision-based attacks side by side with foolbox and ART: the perturbation by queries, on the same
models and images.

    python benchmarks/decisions.py                   # everything; over an hour, most for the peers
    python benchmarks/decisions.py mnist l2          # one data set, one norm
    python benchmarks/decisions.py ours              # the attacks of stresslens alone

A query is one image through the model. A module around the model counts them, notes the size of
every image that fools it, whatever the attack thinks of it, and ends a peer's attack after `QUERIES`.
foolbox attacks `TOGETHER` images at a time (some of its loops wait for the last of them), ART one.
Curves are kept in `KEPT`, and measured once; delete the folder to measure them anew.

The peers are optional (pip install foolbox adversarial-robustness-toolbox, in an environment of
their own); those that are missing are left out.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws

KEPT = Path("runs/benchmark-decisions")
IMAGES, QUERIES, TOGETHER, RESAMPLES = 50, 5000, 10, 2000
MARKS = (100, 200, 500, 1000, 2000, 5000)
ATTACKS: dict[str, tuple[Norm, ...]] = {"hop_skip_jump": ("linf", "l2"), "boundary": ("l2",)}
DATA = {"digits": ("digits", 10), "mnist": ({"mnist": {"subset": 6000}}, 3)}
UNBOUNDED: dict[Norm, float] = {"linf": 1.0, "l2": 100.0}

Peer = Callable[[nn.Module, Tensor, Tensor, Norm], None]
"""Attacks images (n, C, H, W) with their labels (n,) until the model says stop."""


class Spent(Exception):
    """The queries of an image are spent."""


class Counted(nn.Module):
    """A model that notes, for each query, the size of the perturbation if it fools the model.

    A pass is of all n images, or of any number of queries about a single one.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> None:
        super().__init__()
        self.model, self.x, self.y, self.ball = model, x, y, Ball(norm, UNBOUNDED[norm])
        self.sizes: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(z)
        fools = logits.argmax(1) != self.y
        inside = ((z >= 0) & (z <= 1)).flatten(1).all(1)
        sizes = torch.where(fools & inside, self.ball.size(z - self.x), torch.inf)
        self.sizes += sizes.reshape(-1, len(self.x))
        if len(self.sizes) >= QUERIES:
            raise Spent
        return logits


def model_and_images(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """simple_cnn trained on the data, and the first test images that it classifies correctly."""
    data, epochs = DATA[name]
    loaded = registry.resolve("datasets", data)()
    model = sl.train("simple_cnn", loaded, epochs=epochs, out=KEPT / name).model().eval()
    x, y = loaded.test.floats(loaded.test.images[: 4 * IMAGES]).float(), loaded.test.labels[: 4 * IMAGES]
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()[:IMAGES]
    return model, x[right], y[right]


def ours(attack: str, model: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> np.ndarray:
    """(images, marks) the smallest perturbation within so many queries, all images together."""
    ball = Ball(norm, UNBOUNDED[norm])
    sizes: list[list[float]] = [[] for _ in x]

    def watch(rows: Tensor, z: Tensor, logits: Tensor, *_: Tensor | None) -> Tensor:
        seen = torch.where(logits.argmax(1) != y[rows], ball.size(z - x[rows]), torch.inf)
        for row, size in zip(rows.tolist(), seen.tolist()):
            sizes[row].append(size)
        return torch.ones(len(rows), dtype=torch.bool)

    bound = registry.resolve("attacks", {attack: {"queries": QUERIES}})
    with attacked(model):
        bound(model=model, x=x, y=y, ball=ball, draws=Draws(0, torch.arange(len(x))), watch=watch)
    return np.stack([at_marks(each) for each in sizes])


def theirs(peer: Peer, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, together: int) -> np.ndarray:
    """As `ours`. Where the peer finds no start for one of several images, each is attacked alone."""
    curves = []
    for index in torch.arange(len(x)).split(together):
        torch.manual_seed(int(index[0]))
        np.random.seed(int(index[0]))
        counted = Counted(model, x[index], y[index], norm).eval()
        try:
            peer(counted, x[index], y[index], norm)
        except Spent:
            pass
        except ValueError:  # foolbox has no start
            if together > 1:
                curves += list(theirs(peer, model, x[index], y[index], norm, 1))
                continue
        curves += [at_marks(each.tolist()) for each in torch.stack(counted.sizes).T]
    return np.stack(curves)


def at_marks(sizes: list[float]) -> np.ndarray:
    best = np.minimum.accumulate(np.array([*sizes, *[np.inf] * (QUERIES - len(sizes))]))
    return best[np.array(MARKS) - 1]


def foolbox_attack(name: str) -> Peer:
    def attack(model: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> None:
        foolbox = importlib.import_module("foolbox")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        if name == "boundary":
            made = foolbox.attacks.BoundaryAttack(steps=QUERIES)
        else:
            made = foolbox.attacks.HopSkipJumpAttack(steps=QUERIES, constraint=norm)
        made.run(wrapped, x, foolbox.criteria.Misclassification(y))

    return attack


def art_attack(name: str) -> Peer:
    def attack(model: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> None:
        estimators = importlib.import_module("art.estimators.classification")
        evasion = importlib.import_module("art.attacks.evasion")
        classifier = estimators.PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        common = {"targeted": False, "max_iter": QUERIES, "verbose": False}
        if name == "boundary":
            made = evasion.BoundaryAttack(classifier, **common)
        else:
            made = evasion.HopSkipJump(classifier, norm=np.inf if norm == "linf" else 2, **common)
        made.generate(x.numpy(), y.numpy())

    return attack


PEERS = {"foolbox": foolbox_attack, "art": art_attack}


def curves(name: str, attack: str, norm: Norm, who: str) -> np.ndarray | None:
    """(images, marks) of a contestant, measured or as kept; None if the peer is not installed."""
    file = KEPT / f"{name}-{attack}-{norm}-{who}.npy"
    if not file.exists():
        if who in PEERS:
            try:
                importlib.import_module(who)
            except ImportError:
                return None
        model, x, y = model_and_images(name)
        found = (
            theirs(PEERS[who](attack), model, x, y, norm, TOGETHER if who == "foolbox" else 1)
            if who in PEERS
            else ours(attack, model, x, y, norm)
        )
        np.save(file, found)
    return np.load(file)  # type: ignore[no-any-return]


def main(words: list[str]) -> None:
    warnings.simplefilter("ignore")
    KEPT.mkdir(parents=True, exist_ok=True)
    names = [name for name in DATA if name in words] or list(DATA)
    attacks = [name for name in ATTACKS if name in words] or list(ATTACKS)
    norms = [norm for norm in UNBOUNDED if norm in words] or list(UNBOUNDED)
    everyone = ["ours", *PEERS]
    contestants = [who for who in everyone if who in words] or everyone
    for name in names:
        for attack in attacks:
            for norm in (norm for norm in ATTACKS[attack] if norm in norms):
                found = {who: curves(name, attack, norm, who) for who in contestants}
                print_table(
                    f"{attack}, {norm}, {name}", {who: c for who, c in found.items() if c is not None}
                )


def print_table(title: str, found: dict[str, np.ndarray]) -> None:
    n = len(next(iter(found.values())))
    print(f"\n{title}: median perturbation of {n} images within so many queries")
    print(f"| | {' | '.join(f'{mark:,}' for mark in MARKS)} | no start |")
    print(f"|---|{'--:|' * (len(MARKS) + 1)}")
    for who, sizes in found.items():
        cells = [f"{value:.4f}" for value in np.median(sizes, 0)]
        print(f"| {who} | {' | '.join(cells)} | {int(np.isinf(sizes[:, -1]).sum())} |")
    for who in [who for who in found if "ours" in found and who != "ours"]:
        cells = [ratio(found["ours"][:, k], found[who][:, k]) for k in range(len(MARKS))]
        print(f"| ours / {who} | {' | '.join(cells)} | |", flush=True)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The ratio of two medians over the same images, with its interval (percentile bootstrap)."""
    rows = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    resampled = np.median(ours[rows], 1) / np.median(theirs[rows], 1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return f"{np.median(ours) / np.median(theirs):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main(sys.argv[1:])
