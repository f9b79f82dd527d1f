from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Panel, Picture, image_pixels
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Count, Positive, Seed

OTHERS = 1000
"""Images of every other class that an impostor's distance to its source is held against."""
CANDIDATES = 2000


def impostor(
    model: nn.Module,
    train: Split | None,
    classes: Sequence[str],
    *,
    steps: Count = 400,
    lr: Positive = 0.05,
    beta: Positive = 0.05,
    margin: Positive = 1.0,
    seed: Seed = 0,
) -> Panel:
    """For every pair of classes an image that looks like the one and is taken for the other, found
    from noise.

    Descended is the cross-entropy of the class it is to be taken for, until that leads all others
    by `margin`, plus `beta` times the squared distance to a real image of the class it is to look
    like, in [0, 1] (on a scale of 0 to 255 the same β does nothing). That image is the training
    image nearest to its class's mean that the model has right. Kept is the nearest image on the way
    that is taken for the class; else the last. The grid says what the model answers. An impostor
    looks like its source where it is nearer to it than to each of 1,000 images of every other
    class. Raises ConfigError without training images.
    """
    if train is None:
        raise ConfigError("impostor: it looks like a training image, and none are given")
    first = next(model.parameters(), torch.empty(0))
    sources = _sources(model, train, len(classes), seed).to(first.device)  # (K, C, H, W)
    pairs = [(i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    to_be, taken_for = (torch.tensor(each, device=first.device) for each in zip(*pairs))
    goal = sources[to_be]
    noise = Draws(seed, torch.arange(len(pairs))).uniform(*train.shape).to(first.device)
    free = noise.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    kept, nearest = noise.clone(), torch.full((len(pairs),), torch.inf, device=first.device)
    for _ in range(steps):
        with torch.enable_grad():
            logits = model(free)
            if not logits.requires_grad:
                raise ConfigError(
                    "impostor: the model passes no gradient on to its input, which this view climbs along"
                )
            own = logits.gather(1, taken_for[:, None])[:, 0]
            ahead = own - logits.scatter(1, taken_for[:, None], -torch.inf).amax(1)
            cross = nn.functional.cross_entropy(logits, taken_for, reduction="none")
            away = (free - goal).square().sum((1, 2, 3))
            (grad,) = torch.autograd.grad((cross * (ahead < margin) + beta * away).sum(), free)
        better = (logits.argmax(1) == taken_for) & (away < nearest)
        kept[better], nearest[better] = free.detach()[better], away.detach()[better]
        free.grad = grad
        optimizer.step()
        with torch.no_grad():
            free.clamp_(0, 1)
    lost = nearest.isinf()
    kept[lost] = free.detach()[lost]
    return _panel(model, train, classes, sources, pairs, kept, seed)


def _panel(
    model: nn.Module,
    train: Split,
    classes: Sequence[str],
    sources: Tensor,
    pairs: Sequence[tuple[int, int]],
    found: Tensor,
    seed: int,
) -> Panel:
    with torch.no_grad():
        p = model(found).softmax(1)
    guess = p.argmax(1).tolist()
    away = [float((image - sources[i]).norm()) for image, (i, _) in zip(found, pairs)]
    others = _nearest_of_others(train, found, [i for i, _ in pairs], seed)
    like = [own < other for own, other in zip(away, others)]
    taken = [g == j for g, (_, j) in zip(guess, pairs)]
    pixels, reals = image_pixels(found), image_pixels(sources)
    cells: list[list[Picture | None]] = [[None] * len(classes) for _ in classes]
    for k, (i, j) in enumerate(pairs):
        cells[i][j] = Picture(
            pixels[k], f"{classes[guess[k]]} {100 * float(p[k].max()):.0f} %", not (taken[k] and like[k])
        )
    for i in range(len(classes)):
        cells[i][i] = Picture(reals[i], "its source")
    both = sum(a and b for a, b in zip(taken, like))
    said = (
        f"{sum(taken)} of {len(pairs)} impostors are taken for the class they were to be taken for, {sum(like)} are nearer to "
        f"their source than to any of {OTHERS:,} images of every other class, {both} are both"
    )
    grid = Grid(
        "Looks like the class of its row, to be taken for that of its column; under it what the model answers",
        cells,
        list(classes),
        list(classes),
    )
    facts = {
        "pairs": len(pairs),
        "taken": sum(taken),
        "like": sum(like),
        "both": both,
        "distances": away,
        "nearest_others": others,
    }
    return Panel([grid], [said], facts)


def _sources(model: nn.Module, train: Split, classes: int, seed: int) -> Tensor:
    """(K, C, H, W) of each class the image nearest to the mean, of those that the model has right,
    or of all where it has none."""
    first = next(model.parameters(), torch.empty(0))
    found = []
    for k in range(classes):
        own = train.select((train.labels == k).nonzero().flatten())
        own = own.select(sampled_positions(len(own), CANDIDATES, seed))
        x = own.floats(own.images[:]).to(first.device, torch.float32)
        with torch.no_grad():
            right = torch.cat([model(part).argmax(1) for part in torch.split(x, 256)]) == k
        away = (x - x.mean(0)).square().sum((1, 2, 3))
        found.append(x[torch.where(right | ~right.any(), away, torch.inf).argmin()])
    return torch.stack(found)


def _nearest_of_others(train: Split, found: Tensor, source: Sequence[int], seed: int) -> list[float]:
    """The distance of each image to the nearest of `OTHERS` training images of every class but its
    source's."""
    nearest = torch.full((len(found),), torch.inf)
    flat = found.flatten(1).cpu()
    of = torch.tensor(source)
    for k in range(int(train.labels.max()) + 1):
        own = train.select((train.labels == k).nonzero().flatten())
        own = own.select(sampled_positions(len(own), OTHERS, seed))
        away = torch.cdist(flat, own.floats(own.images[:]).flatten(1).float().cpu()).amin(1)
        nearest = torch.where(of == k, nearest, torch.minimum(nearest, away))
    return [float(each) for each in nearest]
