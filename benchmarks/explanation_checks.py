"""Do the checks of explanations catch maps that are wrong, and pass maps that are exact?

    python benchmarks/explanation_checks.py             # digits, 40 images: about 4 minutes
    python benchmarks/explanation_checks.py mnist       # MNIST instead (STRESSLENS_DATA)
    python benchmarks/explanation_checks.py digits 10   # that many images

Trains four models itself: a linear one, a network that is a sum of functions of single pixels
(additive), a perceptron and a small convolutional network. The exact maps are known in closed form
for the first two, and by integrated gradients, whose sum is checked, for the others. Every wrong
map is made from the integrated gradients of the same model, which are right, or from the image
alone. Prints a table with a row for each map: for each model which checks it fails, by number; no
number means that it passes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.explanation.covered_squares import CoveredSquares
from stresslens.explanation.quality import map_quality
from stresslens.plugins.explainers.gradcam import gradcam
from stresslens.plugins.explainers.integrated_gradients import integrated_gradients
from stresslens.plugins.explainers.occlusion import occlusion
from stresslens.plugins.explainers.saliency import saliency
from stresslens.plugins.explainers.smooth_grad import smooth_grad

Explainer = Callable[[nn.Module, Tensor, Tensor, Draws], Maps]
EPOCHS = 15
FOUND = (
    "random ones",
    "random places",
    "another image",
    "another class",
    "weights were",
    "moved",
    "noise that",
)
"""Words of the seven ways to fail, in the order of their numbers."""


class Additive(nn.Module):
    """Logits that are sums of functions of single pixels: Σ tanh of an affine function of each."""

    def __init__(self, pixels: int, classes: int = 10, units: int = 4) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(units, pixels))
        self.shift = nn.Parameter(torch.randn(units, pixels))
        self.read = nn.Parameter(torch.randn(classes, units, pixels) / (units * pixels) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def terms(self, x: Tensor) -> Tensor:
        """(N, K, pixels) what each pixel adds to each logit."""
        return torch.einsum(
            "nup,kup->nkp", torch.tanh(self.gain * x.flatten(1)[:, None] + self.shift), self.read
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.terms(x).sum(2) + self.bias


def exact(model: nn.Module, x: Tensor, y: Tensor) -> Maps:
    """What each pixel adds to the logit, compared with black; for models without a closed form,
    integrated gradients from black."""
    rows = torch.arange(len(x))
    if isinstance(model, Additive):
        terms = model.terms(x)[rows, y] - model.terms(torch.zeros_like(x))[rows, y]
        return Maps(terms.view(-1, *x.shape[2:]), True, "logit")
    if isinstance(last := list(model.children())[-1], nn.Linear) and len(list(model.parameters())) == 2:
        return Maps(last.weight[y].view(-1, *x.shape[2:]) * x[:, 0], True, "logit")
    return integrated_gradients(model, x, y, None)


def networks(side: int) -> dict[str, nn.Module]:
    pixels = side * side
    return {
        "linear": nn.Sequential(nn.Flatten(), nn.Linear(pixels, 10)),
        "additive": Additive(pixels),
        "mlp": nn.Sequential(nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Linear(64, 10)),
        "cnn": nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(side // 4),
            nn.Flatten(),
            nn.Linear(256, 10),
        ),
    }


def fitted(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(EPOCHS if len(x) < 5000 else 2):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


def changed(change: Callable[[Tensor], Tensor]) -> Explainer:
    """The right map, changed."""

    def explainer(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        maps = exact(model, x, y)
        return Maps(change(maps.values), maps.signed, maps.unit)

    return explainer


def of_image(view: Callable[[Tensor], Tensor], signed: bool = False) -> Explainer:
    """A map that is made from the image (N, H, W) alone."""
    return lambda model, x, y, draws: Maps(view(x.mean(1)), signed, "image")


def edges(x: Tensor) -> Tensor:
    padded = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return (across.square() + down.square()).sqrt()


def blob(x: Tensor) -> Tensor:
    down, across = (torch.linspace(-2, 2, side) for side in x.shape[1:])
    return torch.exp(-(down[:, None].square() + across.square())).expand_as(x)


def by_seed(x: Tensor) -> Tensor:
    return torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(x)


def shuffled(maps: Tensor) -> Tensor:
    order = torch.randperm(maps[0].numel(), generator=torch.Generator().manual_seed(0))
    return maps.flatten(1)[:, order].view_as(maps)


def shuffled_where_not_zero(maps: Tensor) -> Tensor:
    result = maps.clone()
    for one in result:
        where = one != 0
        order = torch.randperm(int(where.sum()), generator=torch.Generator().manual_seed(0))
        one[where] = one[where][order]
    return result


def coarse(maps: Tensor) -> Tensor:
    return F.interpolate(F.adaptive_avg_pool2d(maps[:, None], 2), maps.shape[1:])[:, 0]


def wrong_maps(untrained: nn.Module, side: int) -> dict[str, Explainer]:
    far = max(2, side // 7)

    def another_class(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        return exact(model, x, (y + 1) % 10)

    def of_untrained(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        return exact(untrained, x, y)

    def class_mean(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        maps = exact(model, x, y)
        return Maps(torch.stack([maps.values[y == c].mean(0) for c in y]), True, "mean of the class")

    return {
        "upside down": changed(lambda m: m.flip(1)),
        "mirrored": changed(lambda m: m.flip(2)),
        "turned by 180°": changed(lambda m: m.flip(1, 2)),
        f"shifted by {far} pixels": changed(lambda m: m.roll(far, 2)),
        "the other sign": changed(lambda m: -m),
        "of the next image": changed(lambda m: m.roll(1, 0)),
        "of the first image": changed(lambda m: m[:1].expand_as(m)),
        "mean of its class": class_mean,
        "of the next class": another_class,
        "of an untrained net": of_untrained,
        "pixels shuffled": changed(shuffled),
        "pixels shuffled, black kept": changed(shuffled_where_not_zero),
        "noise, fixed": of_image(by_seed),
        "noise, anew at each call": of_image(torch.rand_like),
        "signed noise, anew": of_image(torch.randn_like, True),
        "edges of the image": of_image(edges),
        "the image": of_image(lambda x: x),
        "the image, signed": of_image(lambda x: x - 0.5, True),
        "constant": of_image(torch.ones_like),
        "zero": of_image(torch.zeros_like),
        "blob in the middle": of_image(blob),
        "right, 2×2 cells": changed(coarse),
    }


def right_maps() -> dict[str, Explainer]:
    def integrated(**options: Any) -> Explainer:
        return lambda model, x, y, draws: integrated_gradients(model, x, y, None, **options)

    return {
        "exact, from black": lambda model, x, y, draws: exact(model, x, y),
        "integrated gradients, from black": integrated(),
        "integrated gradients, from grey": integrated(start=0.5),
        "integrated gradients, from blur": integrated(start="blur"),
        "integrated gradients, probability": integrated(of="probability"),
        "gradient × image": lambda model, x, y, draws: saliency(model, x, y, times="image"),
        "occlusion, 1 pixel": lambda model, x, y, draws: occlusion(model, x, y, None, size=1, of="logit"),
    }


def other_maps() -> dict[str, Explainer]:
    return {
        "occlusion": lambda model, x, y, draws: occlusion(model, x, y, None),
        "saliency": lambda model, x, y, draws: saliency(model, x, y),
        "smooth_grad": lambda model, x, y, draws: smooth_grad(model, x, y, draws),
        "gradcam": lambda model, x, y, draws: gradcam(model, x, y),
        "gradcam, guided": lambda model, x, y, draws: gradcam(model, x, y, guided=True),
    }


def checked(model: nn.Module, untrained: nn.Module, x: Tensor) -> Iterator[tuple[str, str, list[int] | None]]:
    """The group and title of each map of images x, and the numbers of the checks that it fails; None
    if the model has no such map."""
    with torch.no_grad():
        y = model(x).argmax(1)
    draws = Draws(0, torch.arange(len(x)))
    with attacked(model):
        squares = CoveredSquares(model, x, y, draws)
        groups = {"right": right_maps(), "wrong": wrong_maps(untrained, x.shape[2]), "other": other_maps()}
        for group, explainers in groups.items():
            for title, explainer in explainers.items():
                try:
                    maps = explainer(model, x, y, Draws(0, draws.index))
                except sl.ConfigError:
                    yield group, title, None
                    continue
                failed = map_quality(maps, explainer, model, x, y, draws, squares).failed
                numbers = [k for k, words in enumerate(FOUND, 1) if any(words in text for text in failed)]
                assert len(numbers) == len(failed), failed
                yield group, title, numbers


def print_table(group: str, names: list[str], rows: dict[str, list[list[int] | None]]) -> None:
    print(f"\n| {group} | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for title, cells in rows.items():
        texts = ["n/a" if cell is None else ", ".join(map(str, cell)) or "–" for cell in cells]
        print(f"| {title} | " + " | ".join(texts) + " |")
    each = [cell for cells in rows.values() for cell in cells if cell is not None]
    print(f"\n{group}: {sum(not cell for cell in each)} of {len(each)} pass")


def main() -> None:
    warnings.filterwarnings("ignore")
    name = sys.argv[1] if len(sys.argv) > 1 else "digits"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = registry.resolve("datasets", name)()
    train, test = (split.floats(split.images[:]) for split in (data.train, data.test))
    models = {key: fitted(model, train, data.train.labels) for key, model in networks(train.shape[2]).items()}
    untrained = {key: model.eval().requires_grad_(False) for key, model in networks(train.shape[2]).items()}
    tables: dict[str, dict[str, list[list[int] | None]]] = {}
    for key, model in models.items():
        with torch.no_grad():
            right = int((model(test).argmax(1) == data.test.labels).sum())
        print(f"{key}: {right} of {len(test)} test images right")
        for group, title, numbers in checked(model, untrained[key], test[:count]):
            tables.setdefault(group, {}).setdefault(title, []).append(numbers)
    for group, rows in tables.items():
        print_table(group, list(models), rows)


if __name__ == "__main__":
    main()
