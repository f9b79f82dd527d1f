from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import features_of
from stresslens.core.panels import Grid, Panel, Picture, image_pixels
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Count, Seed


def neighbours(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    train: Split | None,
    classes: Sequence[str],
    *,
    count: Count = 5,
    among: Count = 10_000,
    seed: Seed = 0,
) -> Panel:
    """The training images that the model takes for most alike: nearest, by the angle between their
    last features, of at most `among` drawn at random. Raises ConfigError without training
    images."""
    if train is None:
        raise ConfigError("neighbours: the nearest training images are asked for, and none are given")
    known = train.select(sampled_positions(len(train), among, seed))
    own, logits = features_of(model, x)
    theirs = torch.cat([features_of(model, batch.x.to(x))[0] for batch in known.batches(512)])
    nearest = (nn.functional.normalize(own, dim=1) @ nn.functional.normalize(theirs, dim=1).T).topk(
        min(count, len(known)), dim=1
    )
    labels = known.labels.to(x.device)[nearest.indices]  # (n, count)
    guess = logits.argmax(1)
    pictures = image_pixels(x)
    rows = []
    for k in range(len(x)):
        beside = known.select(nearest.indices[k].cpu())
        pixels = image_pixels(beside.floats(beside.images[:]))
        said = f"{classes[int(y[k])]}, called {classes[int(guess[k])]}"
        cells = [
            Picture(pixels[j], classes[int(labels[k, j])], bool(labels[k, j] != guess[k]))
            for j in range(len(pixels))
        ]
        rows.append([Picture(pictures[k], said, bool(guess[k] != y[k])), *cells])
    share = float((labels == guess[:, None]).float().mean())
    said = f"{100 * share:.0f} % of the {labels.numel()} nearest training images have the class that the model answers"
    columns = ["image", *(f"nearest {j + 1}" for j in range(labels.shape[1]))]
    grid = Grid(f"The nearest of {len(known):,} training images by the last features", rows, (), columns)
    return Panel([grid], [said], {"share_of_answer": share, "among": len(known)})
