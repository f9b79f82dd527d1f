"""The plan of an explanation: how many images, and which maps are checked, from what a pass costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.config.schema import Explain
from stresslens.core.layer_table import multiply_adds_of
from stresslens.core.pass_time import foretell_passes
from stresslens.core.progress import advance
from stresslens.core.types import Shape
from stresslens.explanation.covered_squares import OWN_PASSES, SHARED_PASSES
from stresslens.explanation.quality import MAPS

WORK = 3.2e12
"""Multiply-adds of a default explanation, at most: about a minute and a half on two cores. They are
counted, not timed, so that the same command explains the same images."""
MOST, FEWEST = 10, 2
"""Images of an explanation that does not say how many. A single image has no other one as a control."""
GRADIENT = 3
"""A gradient costs about as much as three forward passes."""
NOT_CHECKED = "not checked, because it would take long here; --check, or `check: true`, checks it"


@dataclass(frozen=True)
class ExplanationPlan:
    """`images` is the number of images, `checked` says for each explainer whether its maps are
    checked, `costs` (one for each explainer) counts gradients for each image, and `passes` all
    forward passes."""

    images: int
    checked: tuple[bool, ...]
    costs: tuple[float, ...]
    passes: float

    @property
    def order(self) -> list[int]:
        """The explainers, the cheapest first."""
        return sorted(range(len(self.costs)), key=lambda k: self.costs[k])

    def foretell(self, model: nn.Module, x: Tensor, config: Explain) -> None:
        """Says about how long the work on images x (N, C, H, W) takes, unless it is short."""
        what = f"explaining {len(x)} image{'s' if len(x) > 1 else ''}"
        passes = self.passes * len(x) / max(1, self.images)
        foretell_passes(what, model, x[:2], passes, self.quicker(config))

    def quicker(self, config: Explain) -> str:
        """What makes it quicker, in the words of the command line."""
        ways = ["--no-check"] if any(self.checked) else []
        ways += [f"--images {FEWEST}"] if self.images > FEWEST and isinstance(config.choose, str) else []
        return ", ".join([*ways, "--explainer gradcam alone"] if len(self.costs) > 1 else ways)


def planned(model: nn.Module, shape: Shape, explainers: Sequence[Bound], config: Explain) -> ExplanationPlan:
    """The plan for images of a shape (C, H, W).

    What the configuration leaves open (`auto`) is as much as `WORK` allows: of `MOST` images, at
    least `FEWEST`, so many that the maps of all explainers and the checks of the cheapest fit; then
    the checks of the other explainers, the cheaper ones first.
    """
    work = multiply_adds_of(model, shape)
    costs = tuple(_cost(explainer, shape) for explainer in explainers)
    maps = GRADIENT * sum(costs)
    checks = [GRADIENT * (MAPS - 1) * cost + OWN_PASSES for cost in costs]
    first = 0.0 if config.check is False else SHARED_PASSES + min(checks)
    if not isinstance(config.choose, str):
        images = len(config.choose)
    elif config.images != "auto":
        images = config.images
    else:
        fitting = int(WORK / max(work * (maps + first), 1))
        images = min(MOST, max(FEWEST, fitting))
    passes, checked = images * maps, [False] * len(costs)
    for k in sorted(range(len(costs)), key=lambda k: costs[k]):
        more = passes + images * (checks[k] + (0 if any(checked) else SHARED_PASSES))
        if config.check is True or (config.check == "auto" and work * more <= WORK):
            passes, checked[k] = more, True
    return ExplanationPlan(images, tuple(checked), costs, passes)


def passes_of_image(explainer: Bound, shape: Shape, *, checked: bool) -> float:
    """Forward passes of one image for its map and, if it is `checked`, for the checks."""
    cost = _cost(explainer, shape)
    return MAPS * cost + OWN_PASSES + SHARED_PASSES if checked else cost


@contextmanager
def telling_passes(model: nn.Module, what: str, images: int, passes: float) -> Iterator[None]:
    """Reports progress (`core.progress`) by the images that pass through the model, of each of which
    about `passes` passes are expected; what takes more of them waits at the last image."""
    through, told = 0, -1

    def passed(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal through, told
        through += len(inputs[0])
        done = min(int(through / max(passes, 1)), images - 1)
        if done > told:
            told = done
            advance(what, done, images)

    handle = model.register_forward_pre_hook(passed)
    try:
        yield
    finally:
        handle.remove()
    advance(what, images, images)


def _cost(explainer: Bound, shape: Shape) -> float:
    """Gradients that an explainer computes for an image: what the function `cost` beside it says, or
    else its steps or samples."""
    cost = explainer.answer_beside("cost", shape=shape)
    if cost is None:
        cost = explainer.all_options.get("steps") or explainer.all_options.get("samples") or 1
    return float(cost)
