from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.answers import answer_in_words, predicted
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import features_of
from stresslens.core.panels import Grid, Panel, Picture, image_pixels
from stresslens.core.pass_memory import images_at_once
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
    """Nearest neighbours of each image among the training images, by the cosine of the last
    features.

    At most `among` training images, drawn at random, are compared. Raises ConfigError without
    training images.
    """
    if train is None:
        raise ConfigError("neighbours: it needs training images, and none are given")
    known = train.select(sampled_positions(len(train), among, seed))
    features, logits = features_of(model, x)
    batches = known.batches(images_at_once(model, known.shape, 512))
    of_known = torch.cat([features_of(model, batch.x.to(x))[0] for batch in batches])
    cosine = nn.functional.normalize(features, dim=1) @ nn.functional.normalize(of_known, dim=1).T
    nearest = cosine.nan_to_num(-2).topk(min(count, len(known)), dim=1)
    labels = known.labels.to(x.device)[nearest.indices]  # (n, count)
    answers = predicted(logits)
    pictures = image_pixels(x)
    rows = []
    for k in range(len(x)):
        beside = known.select(nearest.indices[k].cpu())
        pixels = image_pixels(beside.floats(beside.images[:]))
        caption = f"{classes[int(y[k])]}, predicted {answer_in_words(int(answers[k]), classes)}"
        cells = [
            Picture(pixels[j], classes[int(labels[k, j])], bool(labels[k, j] != answers[k]))
            for j in range(len(pixels))
        ]
        rows.append([Picture(pictures[k], caption, bool(answers[k] != y[k])), *cells])
    share = float((labels == answers[:, None]).float().mean())
    sentence = f"{100 * share:.0f} % of the {labels.numel()} nearest training images have the predicted class"
    columns = ["image", *(f"nearest {j + 1}" for j in range(labels.shape[1]))]
    grid = Grid(f"The nearest of {len(known):,} training images by the last features", rows, (), columns)
    return Panel([grid], [sentence], {"share_of_answer": share, "among": len(known)})
