"""Test-time augmentation: the probabilities of a model averaged over several views of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core import layers
from stresslens.core.center_crop import CenterCrop, Size, part_at
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.format import points
from stresslens.core.outputs import logits_in
from stresslens.core.run_folder import RunFolder
from stresslens.core.spelling import closest
from stresslens.core.types import Estimate, Shape
from stresslens.evaluation import scores
from stresslens.evaluation.record import AveragedRecord, RunRecord
from stresslens.metrics.intervals import bounded_mean

Change = Callable[[Tensor], list[Tensor]]
CHANGES: dict[str, Change] = {
    "flip": lambda x: [x, x.flip(-1)],
    "vertical_flip": lambda x: [x, x.flip(-2)],
    "quarter_turns": lambda x: [torch.rot90(x, k, (-2, -1)) for k in range(4)],
}
"""Views of the whole image by their name; the image itself is the first of them."""
FIVE_CROPS = "five_crops"


class AveragedViews(nn.Module):
    """Images (N, C, H, W) → the logarithm of the mean probabilities over all views, (N, K).

    With several `views` each view of one is combined with each view of the others. Five crops are
    the middle and the corners (Krizhevsky et al. 2012), where the model crops the middle.
    """

    def __init__(self, model: nn.Module, views: Sequence[str], shape: Shape) -> None:
        """Raises ConfigError as `check_views`."""
        super().__init__()
        check_views(views, shape, model)
        parts = dict(model.named_children())
        crop = parts.get("crop")
        self.changes = [CHANGES[name] for name in dict.fromkeys(views) if name in CHANGES]
        self.model, self.starts = model, [(0, 0)]
        self.crop: CenterCrop | None = None
        if FIVE_CROPS in views and isinstance(crop, CenterCrop):
            self.crop, self.starts = crop, _five(crop.start, crop.size, crop.of)
            self.resize, self.model = parts.get("resize"), layers.for_shown_images(model)

    @property
    def passes(self) -> int:
        """The number of views of each image."""
        return len(self._whole(torch.zeros(1, 1, 1, 1))) * len(self.starts)

    def forward(self, x: Tensor) -> Tensor:
        views = [view for whole in self._whole(x) for view in self._parts(whole)]
        answers = [logits_in(self.model(view), self.model).log_softmax(1) for view in views]
        return torch.stack(answers).logsumexp(0) - math.log(len(answers))

    def _whole(self, x: Tensor) -> list[Tensor]:
        views = [x]
        for change in self.changes:
            views = [changed for view in views for changed in change(view)]
        return views

    def _parts(self, x: Tensor) -> list[Tensor]:
        if self.crop is None:
            return [x]
        resized = x if self.resize is None else self.resize(x)
        return [part_at(start, self.crop.size).of(resized) for start in self.starts]


def check_views(views: Sequence[str], shape: Shape, model: nn.Module | None = None) -> None:
    """Raises ConfigError for an unknown view, for quarter turns of images (C, H, W) that are not square,
    and for five crops of a model that sees the whole image; without the model, the last is not known."""
    known = [*CHANGES, FIVE_CROPS]
    if unknown := [name for name in views if name not in known]:
        raise ConfigError(f"tta: no view is called {unknown[0]!r}; {closest(unknown[0], known)}")
    if "quarter_turns" in views and shape[1] != shape[2]:
        raise ConfigError(f"tta: quarter_turns needs square images; they are {shape[1]}×{shape[2]}")
    sees_a_part = model is None or isinstance(dict(model.named_children()).get("crop"), CenterCrop)
    if FIVE_CROPS in views and not sees_a_part:
        raise ConfigError(
            "tta: five_crops needs a net that sees a part of the image, and this one sees the whole "
            "(see `input: {crop: 0.875}`)"
        )


def _five(middle: Size, size: Size, of: Size) -> list[Size]:
    bottom, right = of[0] - size[0], of[1] - size[1]
    return [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]


def averaged_in_words(found: AveragedRecord) -> str:
    """The gain in accuracy by split, as a sentence."""
    gains = ", ".join(
        f"{split} {points(gain)} points of {gain.n:,} images" for split, gain in found.gain.items()
    )
    views = ", ".join(found.views).replace("_", " ")
    return f"test-time augmentation ({views}; {found.passes} passes): accuracy {gains}"


def score_averaged(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    record: RunRecord,
    views: Sequence[str],
    splits: Sequence[str],
) -> AveragedRecord:
    """Scores some splits of a run with probabilities averaged over views, beside one view of the same
    images, whose predictions the run has saved. Saves the averaged ones in predictions/tta, writes
    `record.averaged` and counts a read of test. Raises ConfigError for views that the model does not
    allow."""
    averaging = AveragedViews(model, views, data.shape)
    found = AveragedRecord(views=list(dict.fromkeys(views)), passes=averaging.passes)
    if record.averaged is not None and record.averaged.views == found.views:
        found = record.averaged
    train_labels = data.train.labels.cpu().numpy()
    for split in splits:
        images = data.splits[split]
        alone, averaged = _alone(folder, model, data, split), scores.predictions_of(averaging, images)
        averaged.save(folder.predictions(f"tta/{split}"))
        found.scores = {**found.scores, split: scores.scores_of(averaged, train_labels)}
        found.alone = {**found.alone, split: alone.accuracy}
        found.gain = {**found.gain, split: gain_of(averaged, alone)}
        record.reads_of_test += split == "test"
    record.averaged = found
    return found


def gain_of(averaged: scores.Predictions, alone: scores.Predictions) -> Estimate:
    """By how much averaging raises the accuracy, with a paired interval over the images."""
    right, right_alone = (scores.right(each).astype(float) for each in (averaged, alone))
    return bounded_mean(right - right_alone, (-1, 1))


def _alone(folder: RunFolder, model: nn.Module, data: Data, split: str) -> scores.Predictions:
    """The predictions of one view: those that the run saved, or new ones where it has none of these
    images. Raises UnreadableRun where they are damaged."""
    images = data.splits[split]
    if folder.predictions(split).is_file():
        saved = scores.Predictions.of_arrays(folder.load_predictions(split))
        if np.array_equal(saved.labels, images.labels.cpu().numpy()):
            return saved
    return scores.predictions_of(model, images)
