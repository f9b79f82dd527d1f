from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.answers import answer_with_confidence, predicted
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Panel, Picture, image_pixels
from stresslens.core.pass_memory import images_at_once, logits_in_pieces
from stresslens.core.pieces import in_pieces
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Count, Positive, Seed

OTHERS = 1000
"""Number of images of every other class that an impostor's distance to its source is compared
with; of large images, a piece (`Split.piece`)."""
CANDIDATES = 2000
"""Number of images of a class among which its source is looked for; of large images, a piece."""


# long: options are spelled out, one a line, and the descent reads in one piece
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
    """For every pair of classes, an image that looks like one class and is classified as the other.

    Gradient descent starts from noise. It minimises the cross-entropy of the predicted class, until
    its logit exceeds all others by `margin`, plus `beta` times the squared distance to a source
    image of the other class, in [0, 1]. (On a scale of 0 to 255 the same β has no effect.) The
    source is the correctly classified training image nearest to its class's mean. The result is the
    iterate nearest to the source that is classified as wanted, or else the last iterate. The grid
    shows the model's predictions. An impostor looks like its source if it is nearer to it than to
    each of 1,000 images of every other class. Raises ConfigError without training images.
    """
    if train is None:
        raise ConfigError("impostor: it needs training images, and none are given")
    device = device_of(model)
    sources = _sources(model, train, len(classes), seed).to(device)  # (K, C, H, W)
    pairs = [(i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    looks_like, wanted = (torch.tensor(numbers, device=device) for numbers in zip(*pairs))
    goal = sources[looks_like]
    noise = Draws(seed, torch.arange(len(pairs))).uniform(*train.shape).to(device)
    free = noise.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    best, nearest = noise.clone(), torch.full((len(pairs),), torch.inf, device=device)
    size = images_at_once(model, train.shape, len(pairs), gradient=True)

    def slopes(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, K) and distances (n,) of some of the images, and the gradient of the cost."""
        point = free.detach()[rows].requires_grad_()
        with torch.enable_grad():
            logits = model(point)
            if not logits.requires_grad:
                raise ConfigError(
                    "impostor: the model passes no gradient back to its input, which this view needs"
                )
            classes_ = wanted[rows]
            of_wanted = logits.gather(1, classes_[:, None])[:, 0]
            ahead = of_wanted - logits.scatter(1, classes_[:, None], -torch.inf).amax(1)
            cross = nn.functional.cross_entropy(logits, classes_, reduction="none")
            distance = (point - goal[rows]).square().sum((1, 2, 3))
            (grad,) = torch.autograd.grad((cross * (ahead < margin) + beta * distance).sum(), point)
        return logits.detach(), distance.detach(), grad

    for _ in range(steps):
        logits, distance, free.grad = (torch.cat(c) for c in zip(*in_pieces(slopes, len(pairs), size)))
        better = (predicted(logits) == wanted) & (distance < nearest)
        best[better], nearest[better] = free.detach()[better], distance[better]
        optimizer.step()
        with torch.no_grad():
            free.clamp_(0, 1)
    failed = nearest.isinf()
    best[failed] = free.detach()[failed]
    return _panel(model, train, classes, sources, pairs, best, seed)


def _panel(
    model: nn.Module,
    train: Split,
    classes: Sequence[str],
    sources: Tensor,
    pairs: Sequence[tuple[int, int]],
    impostors: Tensor,
    seed: int,
) -> Panel:
    with torch.no_grad():
        p = logits_in_pieces(model, impostors).softmax(1)
    answers = predicted(p).tolist()
    distances = [float((image - sources[i]).norm()) for image, (i, _) in zip(impostors, pairs)]
    others = _nearest_of_others(train, impostors, [i for i, _ in pairs], seed)
    like = [distance < other for distance, other in zip(distances, others)]
    taken = [k == j for k, (_, j) in zip(answers, pairs)]
    pixels, source_pixels = image_pixels(impostors), image_pixels(sources)
    cells: list[list[Picture | None]] = [[None] * len(classes) for _ in classes]
    for k, (i, j) in enumerate(pairs):
        cells[i][j] = Picture(pixels[k], answer_with_confidence(p[k], classes), not (taken[k] and like[k]))
    for i in range(len(classes)):
        cells[i][i] = Picture(source_pixels[i], "its source")
    both = sum(a and b for a, b in zip(taken, like))
    sentence = (
        f"{sum(taken)} of {len(pairs)} impostors are classified as wanted, {sum(like)} are nearer to "
        f"their source than to any of {OTHERS:,} images of every other class, {both} are both"
    )
    grid = Grid(
        "Looks like the class of its row; should be classified as that of its column; "
        "below it the model's prediction",
        cells,
        list(classes),
        list(classes),
    )
    facts = {
        "pairs": len(pairs),
        "taken": sum(taken),
        "like": sum(like),
        "both": both,
        "distances": distances,
        "nearest_others": others,
    }
    return Panel([grid], [sentence], facts)


def _sources(model: nn.Module, train: Split, classes: int, seed: int) -> Tensor:
    """(K, C, H, W) for each class, the correctly classified image nearest to its mean.

    If the model classifies none of the class correctly, it is the nearest of all.
    """
    device = device_of(model)
    sources = []
    for k in range(classes):
        of_class = train.select((train.labels == k).nonzero().flatten())
        of_class = of_class.select(sampled_positions(len(of_class), of_class.piece(CANDIDATES), seed))
        x = of_class.floats(of_class.images[:]).to(device, torch.float32)
        with torch.no_grad():
            correct = predicted(logits_in_pieces(model, x, 256)) == k
        distance = (x - x.mean(0)).square().sum((1, 2, 3))
        sources.append(x[torch.where(correct | ~correct.any(), distance, torch.inf).argmin()])
    return torch.stack(sources)


def _nearest_of_others(train: Split, images: Tensor, source: Sequence[int], seed: int) -> list[float]:
    """The distance of each image to the nearest training image of other classes than its source's.

    `OTHERS` images of each class are compared.
    """
    nearest = torch.full((len(images),), torch.inf)
    flat = images.flatten(1).cpu()
    source_class = torch.tensor(source)
    for k in range(int(train.labels.max()) + 1):
        of_class = train.select((train.labels == k).nonzero().flatten())
        of_class = of_class.select(sampled_positions(len(of_class), of_class.piece(OTHERS), seed))
        pixels = of_class.floats(of_class.images[:]).flatten(1).float().cpu()
        distance = torch.cdist(flat, pixels).amin(1)
        nearest = torch.where(source_class == k, nearest, torch.minimum(nearest, distance))
    return [float(distance) for distance in nearest]
