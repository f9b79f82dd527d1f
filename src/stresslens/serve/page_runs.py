"""A run as the page asks it: what it says of a picture, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.colormaps import coloured, limit_of
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.foreign_model import ForeignModel
from stresslens.core.gradient_free import why_no_gradient
from stresslens.core.image_files import quietly
from stresslens.core.layers import preparation
from stresslens.core.panels import image_pixels
from stresslens.core.thumbnails import image_address
from stresslens.evaluation.classify_files import Classifier, Prediction, Upload
from stresslens.evaluation.guarantees import wanted
from stresslens.evaluation.ood import Features
from stresslens.evaluation.predictor import Answer, Predictor, prompted_predictor, reads_captions
from stresslens.explanation.maps import compute_maps
from stresslens.explanation.svg import png
from stresslens.metrics.intervals import Floats
from stresslens.serve.classification import ServedRuns
from stresslens.serve.map_trust import trust_of_maps
from stresslens.serve.own_images import OwnImages

COVERAGES = (0.9, 0.95, 0.99)
"""Of the sets of classes that the page shows."""
SHOWN = 10
"""Classes with their probabilities, at most."""
DRAWABLE = 64
"""Images of up to so many pixels a side are drawn pixel by pixel."""
DARK = 0.5
"""Training images whose edge is darker have light ink on a dark ground."""
LAYERS = ("resize", "crop")
"""The layers in front of the net whose output is shown as what the network sees."""
CAPTIONED = 4
"""Lists of captions of a run that are kept ready."""


class PageRun:
    """An opened run. Raises what `Classifier` raises."""

    def __init__(
        self, name: str, path: Path, predictor: Predictor, served: ServedRuns, own: OwnImages | None = None
    ) -> None:
        self.name, self.path, self.served = name, path, served
        self.facts = predictor.facts
        self.predictor = replace(predictor, answer=_Once(predictor.answer))
        self.model: nn.Module = predictor.model or _graph(predictor)
        self.classifier = Classifier(self.predictor, most_pixels=served.pixels)
        self.own = own or OwnImages(path, self.facts, self.model, trust=served.trust)
        self.prompted = lru_cache(CAPTIONED)(self._prompted)

    def _prompted(self, captions: tuple[str, ...]) -> PageRun:
        """The run with these captions as its classes. Raises ConfigError for a run without a text side."""
        predictor = prompted_predictor(self.predictor, self.path, captions)
        return PageRun(self.name, self.path, predictor, self.served, self.own)

    @property
    def no_gradient(self) -> str:
        """What the model is, in words, if it has no gradient."""
        return why_no_gradient(self.model)

    def described(self) -> dict[str, Any]:
        """What the page must know of the run before it asks anything."""
        _, height, width = self.facts.shape
        return {
            "name": self.name,
            "shape": self.facts.shape,
            "classes": self.facts.classes,
            "explainers": self.explainers,
            "no_gradient": self.no_gradient,
            "text": reads_captions(self.model),
            "drawable": max(height, width) <= DRAWABLE,
            "ink": self.ink,
        }

    @cached_property
    def ink(self) -> str:
        """The colour to draw with: white, or black where the training images have a light ground."""
        channels, height, width = self.facts.shape
        light = channels == 3
        if self.predictor.ood is not None:
            sides = (min(8, height), min(8, width))
            coarse = self.predictor.ood.coarse.mean[: channels * sides[0] * sides[1]]
            mean = coarse.reshape(channels, *sides).mean(0)
            light = float(np.median(np.concatenate([mean[0], mean[-1], mean[:, 0], mean[:, -1]]))) > DARK
        return "black" if light else "white"

    def images_of(self, picture: Upload) -> Tensor | str:
        """A picture as the model takes it, (1, C, H, W) in [0, 1], or why it cannot be read."""
        with quietly():
            pixels = self.classifier.read(picture)
        return pixels if isinstance(pixels, str) else torch.from_numpy(np.stack([pixels])).float() / 255

    def look(self, x: Tensor) -> dict[str, Any]:
        """The prediction for an image x (1, C, H, W), with what it is to be believed by."""
        return {**self.predicted(x), "seen": self.seen(x), **self.sets(x)}

    def predicted(self, x: Tensor) -> dict[str, Any]:
        """The most probable classes with calibrated probabilities, and how unlike the training images the
        image is; as `stresslens predict` gives them."""
        (prediction,) = self.classifier.of_images(x, SHOWN)
        values = prediction.as_json()
        return {
            "classes": [[each["class"], each["probability"]] for each in values["predictions"]],
            "no_answer": values.get("no_answer"),
            "calibration": self.calibration,
            "p": prediction.ood_p_value,
            "unlike": prediction.out_of_distribution,
            "likeness": self._likeness(prediction),
        }

    @property
    def calibration(self) -> str:
        """What the probabilities are, in a sentence."""
        if self.facts.calibrated_on is not None:
            return f"Calibrated on the {self.facts.calibrated_on} images."
        return f"Not calibrated: {self.facts.not_calibrated}."

    def _likeness(self, prediction: Prediction) -> str:
        """How unlike the training images an image is, in a sentence."""
        detector, p = self.predictor.ood, prediction.ood_p_value
        if detector is None or p is None:
            return "Not known: the run has no detector, which held-out images calibrate."
        n = len(detector.calibration)
        share = f"p = {p:.3g}: of {n:,} held-out images, {round(p * (n + 1)) - 1:,} are as unlike or more so"
        alarm = f"an alarm is raised at p ≤ {detector.rate:.3g}, a false one for that share of such images"
        return f"{share}; {alarm}."

    def sets(self, x: Tensor) -> dict[str, Any]:
        """The sets of classes of an image at each of `COVERAGES`, or why there are none."""
        try:
            found = []
            for coverage in COVERAGES:
                classifier = self._calibrated(coverage)
                assert classifier.guarantees is not None
                (prediction,) = classifier.of_images(x)
                assert prediction.guaranteed is not None
                first, *others = classifier.guarantees.sentences
                found.append(
                    {
                        "coverage": coverage,
                        "classes": prediction.guaranteed.classes,
                        "said": first,
                        "more": " ".join(others),
                    }
                )
        except ConfigError as error:
            return {"sets": [], "no_sets": f"No sets of classes: {error}"}
        return {"sets": found, "no_sets": ""}

    def _calibrated(self, coverage: float) -> Classifier:
        if coverage not in self._classifiers:
            self._classifiers[coverage] = Classifier(self.predictor, wanted(coverage=coverage))
        return self._classifiers[coverage]

    @cached_property
    def _classifiers(self) -> dict[float, Classifier]:
        return {}

    def seen(self, x: Tensor) -> dict[str, Any]:
        """The picture that the net gets, but for its normalisation."""
        shown = x
        with torch.no_grad():
            for name, layer in self.model.named_children():
                shown = layer(shown) if name in LAYERS else shown
        prepared = "net" in dict(self.model.named_children())  # not of an estimator, nor of a graph
        how = preparation(self.model, self.facts.shape) if prepared else ""
        kind = "grey" if shown.shape[1] == 1 else "in colours"
        size = f"{shown.shape[3]}×{shown.shape[2]} pixels, {kind}"
        return {"picture": picture_of(shown), "said": "; ".join(filter(None, [size, how])) + "."}

    @cached_property
    def explainers(self) -> list[str]:
        """The explainers that the model supports, the best checked first."""
        named = [name for name in registry.names("explainers") if self._supports(name)]
        usual = ["integrated_gradients", "occlusion"]
        return sorted(named, key=lambda name: (not trust_of_maps(self.path, name).good, name not in usual))

    def _supports(self, explainer: str) -> bool:
        """Maps that need gradients are tried, by one map of noise; several gradients fail where one does."""
        if explainer == "occlusion":
            return True
        instead = {"integrated_gradients": "saliency", "smooth_grad": "saliency"}.get(explainer, explainer)
        noise = torch.rand(1, *self.facts.shape, generator=torch.Generator().manual_seed(0))
        try:
            self._maps(noise, instead, 0)
        except (StresslensError, RuntimeError, ValueError):
            return False
        return True

    def _maps(self, x: Tensor, explainer: str, k: int) -> Any:
        bound = registry.resolve("explainers", explainer)
        return compute_maps(self.model, bound, x, torch.tensor([k]), name=explainer, check=False)[0]

    def explained(self, x: Tensor, explainer: str, about: str) -> dict[str, Any]:
        """The map of an image x (1, C, H, W) for the class `about`. Raises ConfigError for an explainer that
        the run does not have."""
        if explainer not in self.explainers:
            explainer = self.explainers[0]
        maps = self._maps(x, explainer, self.facts.classes.index(about))
        values = maps.values[0].cpu().numpy()
        limit = limit_of(values)
        trust = trust_of_maps(self.path, explainer)
        return {
            "explainer": explainer,
            "about": about,
            "picture": address_of(coloured(values, limit, signed=maps.signed)),
            "signed": maps.signed,
            "limit": limit,
            "unit": maps.unit,
            "notes": maps.notes,
            "trust": trust.said,
            "good": trust.good,
        }


class _Once:
    """An answer that is computed once for the same tensor: its prediction and its sets need one pass."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._known: tuple[Tensor, tuple[Floats, Features]] | None = None

    def __call__(self, x: Tensor) -> tuple[Floats, Features]:
        if self._known is None or self._known[0] is not x:
            self._known = (x, self.answer(x))
        return self._known[1]


def _graph(predictor: Predictor) -> ForeignModel:
    """The logits of a predictor without a module, as a model without a gradient."""
    return ForeignModel(
        lambda images: predictor.answer(torch.from_numpy(images))[0].astype(np.float32),
        "an exported graph",
        classes=len(predictor.facts.classes),
    )


def corrupted(x: Tensor, severities: Mapping[str, int]) -> Tensor:
    """An image x (1, C, H, W) under corruptions, each at a severity from 1 to 5, one after the other in the
    order of their names. The same image gets the same random draws."""
    for name, severity in sorted(severities.items()):
        bound = registry.resolve("corruptions", name)
        draws = Draws(mix(0, *name.encode()), torch.zeros(1, dtype=torch.int64))
        x = bound(x=x, draws=draws, severity=severity)
    return x


def picture_of(x: Tensor) -> str:
    """The address (`data:`) of an image (1, C, H, W), pixel by pixel."""
    return address_of(image_pixels(x)[0])


def address_of(pixels: NDArray[np.uint8] | Sequence[Any]) -> str:
    """The address of pixels (H, W) or (H, W, 3) as a PNG file of the same size."""
    return image_address(png(np.asarray(pixels), 1), "png")
