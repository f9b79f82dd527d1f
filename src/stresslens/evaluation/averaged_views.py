"""Test-time augmentation: the probabilities of a model averaged over several views of an image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stresslens.core import layers
from stresslens.core.center_crop import CenterCrop, Size
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.format import points
from stresslens.core.run_folder import RunFolder
from stresslens.core.spelling import closest
from stresslens.core.types import Shape
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
        """Raises ConfigError for an unknown view, for quarter turns of images that are not square, and
        for five crops of a model that sees the whole image."""
        super().__init__()
        known = [*CHANGES, FIVE_CROPS]
        if unknown := [name for name in views if name not in known]:
            raise ConfigError(
                f"evaluation.tta: no view is called {unknown[0]!r}; {closest(unknown[0], known)}"
            )
        parts = OrderedDict(model.named_children())
        crop = parts.get("crop")
        if "quarter_turns" in views and shape[1] != shape[2]:
            raise ConfigError(
                f"evaluation.tta: quarter_turns needs square images; they are {shape[1]}×{shape[2]}"
            )
        if FIVE_CROPS in views and not isinstance(crop, CenterCrop):
            raise ConfigError(
                "evaluation.tta: five_crops needs a net that sees a part of the image, and this one sees "
                "the whole (see `input: {crop: 0.875}`)"
            )
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
        answers = [self.model(view).log_softmax(1) for whole in self._whole(x) for view in self._parts(whole)]
        return torch.stack(answers).logsumexp(0) - torch.tensor(float(len(answers))).log().item()

    def _whole(self, x: Tensor) -> list[Tensor]:
        views = [x]
        for change in self.changes:
            views = [changed for view in views for changed in change(view)]
        return views

    def _parts(self, x: Tensor) -> list[Tensor]:
        if self.crop is None:
            return [x]
        resized = x if self.resize is None else self.resize(x)
        height, width = self.crop.size
        return [resized[:, :, top : top + height, left : left + width] for top, left in self.starts]


def _five(middle: Size, size: Size, of: Size) -> list[Size]:
    bottom, right = of[0] - size[0], of[1] - size[1]
    return [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]


def averaged_in_words(found: AveragedRecord) -> str:
    """The gain in accuracy by split, as a sentence."""
    gains = ", ".join(f"{split} {points(gain)} points" for split, gain in found.gain.items())
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
    images. Saves the predictions in predictions/tta, writes `record.averaged` and counts a read of
    test. Raises ConfigError for views that the model does not allow."""
    averaging = AveragedViews(model, views, data.shape)
    found = AveragedRecord(views=list(dict.fromkeys(views)), passes=averaging.passes)
    if record.averaged is not None and record.averaged.views == found.views:
        found = record.averaged
    train_labels = data.train.labels.cpu().numpy()
    for split in splits:
        images = data.splits[split]
        alone, averaged = (scores.predictions_of(each, images) for each in (model, averaging))
        averaged.save(folder.predictions(f"tta/{split}"))
        right, right_alone = ((scores.right(each)).astype(float) for each in (averaged, alone))
        found.scores = {**found.scores, split: scores.scores_of(averaged, train_labels)}
        found.alone = {**found.alone, split: scores.scores_of(alone, train_labels)["accuracy"]}
        found.gain = {**found.gain, split: bounded_mean(right - right_alone, (-1, 1))}
        record.reads_of_test += split == "test"
    record.averaged = found
    return found
