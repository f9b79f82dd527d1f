"""Models that other software computes, as torch modules: images in the model's own layout, and its
scores, probabilities or labels as logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.outputs import logits_in
from stresslens.core.types import Shape

Layout = Literal["nchw", "nhwc", "flat"]
"""How a batch of images lies: channels first (N, C, H, W), channels last (N, H, W, C), or the numbers of
each image in a row (N, C·H·W)."""
Output = Literal["logits", "probabilities", "labels"]
"""What a model returns: logits or other scores (N, K), probabilities (N, K), or class numbers (N,)."""

LEAST = float(torch.finfo(torch.float32).tiny)
"""A probability below this, such as 0, has the logarithm of this: about -87."""
SUM, SURE = 1e-2, 1e-5
"""Rows of probabilities add up to 1, up to the first (some software rounds to float16). Rows of logits
that add up to 1 within the second look like probabilities."""


class ForeignModel(nn.Module):
    """A model of other software: images (N, C, H, W) → logits (N, K), float32 on the images' device.

    `answer` is a torch module, which keeps its gradient, or a function of a float32 array of images, which
    has none. `what` names it in messages ("an ONNX graph"). The images get the `layout` first, and with
    `bgr` their channels in the opposite order. Probabilities become their logarithms, and labels 1 for
    their class and 0 for the others. Of two classes one column is enough, the score or probability of the
    second. `columns` picks the outputs of the classes, in their order; a label of none of them becomes NaN.
    With `batch` the model gets exactly so many images at a time, the last ones filled up.

    Raises ConfigError in a pass for anything else than an answer for each image.
    """

    def __init__(
        self,
        answer: nn.Module | Callable[[np.ndarray], Any],
        what: str,
        *,
        classes: int | None = None,
        layout: Layout = "nchw",
        bgr: bool = False,
        output: Output = "logits",
        columns: Sequence[int] | None = None,
        batch: int | None = None,
        digest: str = "",
    ) -> None:
        super().__init__()
        self.answer = answer
        self.what, self.classes, self.layout, self.bgr = what, classes, layout, bgr
        self.output, self.columns, self.batch = output, columns, batch
        self.digest = digest
        """A digest of the file, so that a changed file is another model."""
        if not isinstance(answer, nn.Module):
            self.no_gradient = what

    def forward(self, x: Tensor) -> Tensor:
        size = self.batch or max(1, len(x))
        parts = [self._logits(x[start : start + size]) for start in range(0, max(1, len(x)), size)]
        return torch.cat(parts).to(x.device)

    def _logits(self, x: Tensor) -> Tensor:
        n, images = len(x), self._laid_out(x)
        if self.batch is not None and n < self.batch:
            images = torch.cat([images, images[:1].expand(self.batch - n, *images.shape[1:])])
        if isinstance(self.answer, nn.Module):
            raw: Any = logits_in(self.answer(images), self.answer)
        else:
            raw = self.answer(np.ascontiguousarray(images.detach().cpu().numpy(), dtype=np.float32))
        return self._as_logits(self._scores(raw, len(images))[:n])

    def _laid_out(self, x: Tensor) -> Tensor:
        if self.bgr:
            x = x.flip(1)
        if self.layout == "nhwc":
            return x.permute(0, 2, 3, 1).contiguous()
        return x.flatten(1) if self.layout == "flat" else x

    def _scores(self, raw: Any, n: int) -> Tensor:
        """The answer as a tensor (n, K), or (n,) of a single column."""
        try:
            scores = raw if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw, np.float32))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.what} returned no numbers ({first_line(error)})") from error
        if scores.ndim > 2 and scores.shape[2:].numel() == 1:
            scores = scores.flatten(1)
        if scores.ndim not in (1, 2) or len(scores) != n:
            raise ConfigError(
                f"{self.what} returned shape {tuple(scores.shape)} for {n} images; expected "
                f"({n}, classes), or ({n},) for labels or the score of the second of two classes"
            )
        return scores.float()

    def _as_logits(self, scores: Tensor) -> Tensor:
        if self.output == "labels":
            scores = self._of_labels(scores)
        if scores.ndim == 1:
            scores = scores[:, None]
        if scores.shape[1] == 1 and self.classes == 2:
            rest = 1 - scores if self.output == "probabilities" else torch.zeros_like(scores)
            scores = torch.cat([rest, scores], 1)
        if self.output == "probabilities":
            known = scores[scores.isfinite().all(1)]
            if bool((known < -SUM).any()):
                raise ConfigError(
                    f"{self.what} returned {float(known.min()):.4g}, which is no probability; set its output "
                    "to logits"
                )
            wrong = (sums := known.sum(1))[(sums - 1).abs() > SUM]
            if len(wrong):
                raise ConfigError(
                    f"{self.what} returned rows that add up to {float(wrong[0]):.4g}, and these are no "
                    "probabilities; set its output to logits"
                )
            scores = scores.clamp_min(LEAST).log()
        elif self.output == "logits" and scores.shape[1] > 1 and look_like_probabilities(scores):
            raise ConfigError(
                f"{self.what} returns probabilities (rows in [0, 1] that add up to 1); say so with output: "
                "probabilities (of an own function: as_model(…, output='probabilities')), and their "
                "logarithms are its logits"
            )
        if self.columns is not None:
            if max(self.columns) >= scores.shape[1] or min(self.columns) < 0:
                raise ConfigError(f"columns: {self.what} has the outputs 0 to {scores.shape[1] - 1}")
            scores = scores[:, list(self.columns)]
            if self.output == "labels":
                scores = torch.where(scores.any(1, keepdim=True), scores, torch.nan)
        return scores

    def _of_labels(self, labels: Tensor) -> Tensor:
        labels = labels.flatten()
        classes = self.classes
        if classes is None:
            raise ConfigError(f"{self.what} returns labels; say how many classes there are (classes=…)")
        known = labels.isfinite()
        numbers = torch.where(known, labels, 0).long()
        strange = known & ((labels != numbers) | (numbers < 0) | (numbers >= classes))
        if bool(strange.any()):
            raise ConfigError(
                f"{self.what} returned {float(labels[strange][0]):g}, which is no class from 0 to "
                f"{classes - 1}; if these are scores, set its output to logits"
            )
        logits = nn.functional.one_hot(numbers, classes).float()
        return torch.where(known[:, None], logits, torch.nan)


def tried(model: ForeignModel, shape: Shape, classes: int) -> ForeignModel:
    """The model, after a pass over a black image and one of noise of a shape (C, H, W).

    Raises ConfigError where it cannot take them, has another number of outputs than there are classes,
    or answers with NaN alone.
    """
    noise = torch.rand(1, *shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    x = torch.cat([torch.zeros_like(noise), noise])
    what = model.what
    try:
        with torch.no_grad():
            scores = model(x)
    except StresslensError:
        raise
    except Exception as error:  # other software raises anything
        raise ConfigError(
            f"{what} cannot take images of shape {tuple(shape)} (channels, height, width) in the layout "
            f"{model.layout}: {first_line(error)}. Say what it expects: layout, size, scale, batch"
        ) from error
    if scores.shape[1] != classes:
        raise ConfigError(
            f"{what} has {scores.shape[1]} outputs, and the data have {classes} classes; say which outputs "
            f"are these classes, in their order: columns: [0, 3, …] ({classes} numbers from 0)"
        )
    names_others = model.output == "labels" and model.columns is not None
    if not names_others and not bool(scores.isfinite().any(1).any()):
        raise ConfigError(f"{what} returns NaN or infinity for a black image and for noise")
    return model


def look_like_probabilities(scores: Tensor) -> bool:
    """Whether the rows of scores (N, K) lie in [0, 1] and add up to 1."""
    known = scores[scores.isfinite().all(1)].double()
    inside = bool(((known >= 0) & (known <= 1)).all())
    return len(known) > 0 and inside and bool(((known.sum(1) - 1).abs() < SURE).all())
