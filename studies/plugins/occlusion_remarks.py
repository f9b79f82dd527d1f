"""Remarks that a lab made on its occlusion maps by eye, counted over many test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from torch import Tensor, nn

from stresslens.metrics.intervals import t_mean
from stresslens.plugins import Count, Estimate, Lines, Panel, Split, balanced_subset, tapped

SIZES = (1, 3, 5, 7, 14)


def occlusion_remarks(
    model: nn.Module, split: Split, classes: Sequence[str], *, images: Count = 1000
) -> Panel:
    """How far the probability of the label falls under a grey square, where, and what is predicted instead.

    It draws `images` class-balanced images and uses those that the model classifies correctly.
    Intervals are 95 %, over the images.
    """
    some = split.select(balanced_subset(split.labels.cpu(), images, seed=0))
    x, y = some.floats(some.images[:]).float(), some.labels
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in torch.split(x, 250)]) == y
    x, y = x[right], y[right]
    if not len(x):
        return Panel([], ["the model has none of these images right, so nothing can be lost"])
    least, found = {}, {}
    for size in SIZES:
        kept, guess = _occluded(model, x, y, size)
        least[size] = t_mean(kept.flatten(1).amin(1).double().numpy())
        found[size] = kept, guess
    kept, guess = found[5]
    lost = 1 - kept.double().numpy()
    ink = (x[:, 0] > 0.5).numpy()
    holes = np.stack([binary_fill_holes(each) & ~each for each in ink])
    said = [
        "the lowest probability of the truth under a square of "
        + ", ".join(f"{size}: {_percent(e)}" for size, e in least.items())
        + " pixels: doubt grows with the square",
        f"a square of 5 costs {_points(_gap(lost, ink, ~ink))} more probability centred on the stroke "
        "than beside it",
    ]
    facts = {"least": {size: e.as_json() for size, e in least.items()}, "n": len(x)}
    middle = np.zeros(x.shape[2:], bool)
    middle[x.shape[2] // 3 : -(x.shape[2] // 3), x.shape[3] // 3 : -(x.shape[3] // 3)] = True
    for name, of in (("1", y.numpy() == 1), ("the other digits", y.numpy() != 1)):
        inside = np.broadcast_to(middle, lost[of].shape)
        said.append(
            f"of {name}: {_points(_gap(lost[of], inside, ~inside))} more is lost in the middle ninth "
            "than elsewhere"
        )
    for digit in (6, 9):
        of = (y.numpy() == digit) & (holes.sum((1, 2)) > 0)
        gap = _gap(lost[of], holes[of], ~holes[of] & ~ink[of])
        said.append(
            f"of {digit} with a closed loop: {_points(gap)} more is lost inside the loop "
            "than in the background"
        )
    fours = [answers[answers != 4] for answers in guess[y == 4].flatten(1).numpy()]
    fooled = [answers for answers in fours if len(answers)]
    if fooled:
        nine = replace(t_mean(np.array([float((answers == 9).mean()) for answers in fooled])), unit="images")
        most = classes[int(np.bincount(np.concatenate(fooled)).argmax())]
        how = f"{_percent(nine)} of the positions where it is (mean of {nine.n} images)"
        said.append(
            f"a 4 that is mistaken under the square is called 9 in {how}; most often it is called {most}"
        )
    abstract = _explained_by_class(model, x, y)
    said.append(
        "how much of the variation of a channel's mean activation the class explains: "
        + ", ".join(f"{name} {_percent(e)}" for name, e in abstract.items())
    )
    facts |= {"by_class": {name: e.as_json() for name, e in abstract.items()}}
    line = [(float(size), 100 * e.value) for size, e in least.items()]
    return Panel(
        [
            Lines(
                "Lowest probability of the truth under a square",
                "pixels of a side",
                "probability, %",
                {"mean": line},
            )
        ],
        said,
        facts,
    )


def _occluded(model: nn.Module, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The probability of the label and the predicted class, (N, h, w) each, under a grey square.

    The square is centred at every second pixel.
    """
    side = x.shape[2]
    above = (size - 1) // 2
    kept, guess = torch.zeros(len(x), side, side), torch.zeros(len(x), side, side, dtype=torch.int64)
    with torch.no_grad():
        for row in range(0, side, 2):
            for column in range(0, side, 2):
                covered = x.clone()
                covered[
                    :,
                    :,
                    max(0, row - above) : row - above + size,
                    max(0, column - above) : column - above + size,
                ] = 0.5
                p = torch.cat([model(part).softmax(1) for part in torch.split(covered, 250)])
                kept[:, row : row + 2, column : column + 2] = p.gather(1, y[:, None])[:, :, None]
                guess[:, row : row + 2, column : column + 2] = p.argmax(1)[:, None, None]
    return kept, guess


def _gap(
    values: NDArray[np.float64], inside: NDArray[np.bool_], outside: NDArray[np.bool_]
) -> Estimate | None:
    """The mean over `inside` minus the mean over `outside`, within each image that has both.

    None if no image has both.
    """
    both = (inside.sum((1, 2)) > 0) & (outside.sum((1, 2)) > 0)
    means = [
        np.where(some, values, 0).sum((1, 2))[both] / some.sum((1, 2))[both] for some in (inside, outside)
    ]
    return replace(t_mean(means[0] - means[1]), unit="images") if both.any() else None


def _explained_by_class(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Estimate]:
    """For each convolution: the share of a channel's variation between images that lies between classes.

    The mean and its interval are over channels.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad(), tapped(model, names) as outputs:
        model(x[:1000])
    found = {}
    for name in names:
        values = outputs[name].relu().mean((2, 3)).double()  # (N, channels)
        label = y[: len(values)]
        whole = (values - values.mean(0)).square().sum(0)
        means = torch.stack([values[label == k].mean(0) for k in label.unique()])
        sizes = torch.stack([(label == k).sum() for k in label.unique()])[:, None]
        between = (sizes * (means - values.mean(0)).square()).sum(0)
        found[name] = t_mean((between / whole.clamp_min(1e-12)).numpy())
    return found


def _percent(e: Estimate) -> str:
    """A share in % with its interval, clipped to 0 and 100 %."""
    return f"{100 * e.value:.0f} % ({100 * max(0.0, e.low):.0f} to {100 * min(1.0, e.high):.0f})"


def _points(e: Estimate | None) -> str:
    if e is None:
        return "– points (there is no such image)"
    return f"{100 * e.value:.1f} points ({100 * e.low:.1f} to {100 * e.high:.1f}; n = {e.n})"
