"""Evidence that audits read: table rows, minimal radii, traces of attacks, and a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.ball import Norm

UNTOUCHED = 1e-3
"""A perturbation of less than this share of the radius counts as none."""
CLEAN = "none"
"""The attack of a table's clean rows."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a model's accuracy on n images under an attack at a radius.

    `attack` is `CLEAN` for clean accuracy. A value that the table does not give is None.
    """

    model: str
    attack: str
    eps: float
    accuracy: float
    n: int | None = None
    norm: Norm | None = None
    steps: int | None = None
    step_size: float | None = None
    """In pixel units."""
    trained: str = ""
    """The attack of the model's adversarial training ("fgsm", "pgd", …), if the table gives it."""
    line: int | None = None
    grain: float = 0.0
    """The unit of the last digit of the accuracy."""
    score: str = ""
    """The kind of accuracy ("top-5"), if the table has several kinds for the same model."""
    restarts: int | None = None
    queries: int | None = None
    named_norm: Norm | None = None
    """The norm in the attack's own name ("PGD-L2"); `norm` is what the table says of the row."""
    written: str = ""
    """The accuracy as the table writes it, such as "52.1 ± 0.3"."""
    broken: str = ""
    """The share of broken images (the attack's success rate) beside it, as the table writes it."""
    largest_class: float | None = None
    """The largest class's share of all images, among those that are right without attack. It is
    known for a result of stresslens, whose attacks other audits run again."""


@dataclass(frozen=True)
class Curve:
    """The worst case of every image over all attacks."""

    norm: Norm
    radii: tuple[float, ...]
    smallest: NDArray[np.float64]
    """(n,) minimal radius: the smallest of `radii` at which an attack succeeds. It is 0 for an
    image that is misclassified without attack, and infinite if no attack succeeds."""
    by: NDArray[np.int64]
    """(n,) the attack that succeeded, a position in `attacks`, or -1."""
    attacks: tuple[str, ...]
    asked: int
    """The number of images that the attack was given."""
    reported: float | None = None
    """The model's clean accuracy on the same images, from its own record."""
    labels: NDArray[np.int64] | None = None
    """(n,) the true classes, if they are known."""
    targeted: bool = False
    """Whether only the prediction of a target class counts as success."""
    chunk: int | None = None
    """The number of images that were attacked together, in this order."""
    repeated: int = 0
    """The number of further images that repeat one of these, pixel by pixel."""
    no_answer: NDArray[np.bool_] | None = None
    """(n,) images whose scores are not finite (`core.answers`): without attack, or of the
    adversarial image of the minimal radius. None if it is not known."""

    def robust(self, eps: float) -> NDArray[np.bool_]:
        """(n,) which images are classified correctly at every radius up to `eps`."""
        return self.smallest > eps


def largest_class(curve: Curve) -> int:
    """The number of images of the largest class among those that are right without attack, or of
    all of them if the labels are not known. Where all images can be made the same, at most so many
    stay correct."""
    right = curve.smallest > 0
    if curve.labels is None or not right.any():
        return int(right.sum())
    return int(np.bincount(curve.labels[right]).max())


PARTS, CLASSES = 8, 100
"""`groups` divides a batch into so many parts, and tells apart at most so many classes."""


def groups(labels: NDArray[np.int64], places: NDArray[np.int64], size: int) -> dict[str, NDArray[np.bool_]]:
    """Groups of images that a faulty attack may leave out: of one class, in one part of the batch,
    at its even or odd places.

    `labels` and `places` (n,) are the images' classes and places in batches of `size` images. The
    values are (n,), which images are in the group.
    """
    part, classes = places * PARTS // max(size, 1), np.unique(labels)
    return {
        **{f"class {label}": labels == label for label in classes if len(classes) <= CLASSES},
        **{f"part {k + 1} of {PARTS} of the batch": part == k for k in np.unique(part)},
        **{f"{name} places of the batch": places % 2 == k for k, name in enumerate(("even", "odd"))},
    }


@dataclass
class Trace:
    """What was observed of one attack at one radius (the largest of those attacked together)."""

    attack: str
    options: Mapping[str, Any]
    eps: float
    n: int
    """Attacked images: those that no earlier attack had broken."""
    broke: int = 0
    """Images on which the attack succeeded."""
    outside: int = 0
    """Returned images that are outside the ball or the box."""
    excess: float = 0.0
    """The largest norm of a returned perturbation, divided by the radius."""
    silent: int = 0
    """Images for which an iterate inside ball and box fooled the model, but not the returned
    image."""
    no_answer: int = 0
    """Images that count as broken because the model's scores are not finite (`core.answers`)."""
    zero_at_start: int = 0
    """Images whose gradient was exactly zero at the first iterate."""
    zero_on_path: int = 0
    """Images whose gradient was exactly zero at a later iterate."""
    gradients: int = 0
    """Number of gradients, counted by image; `forwards` is the number of forward passes by
    image."""
    forwards: int = 0
    seconds: float = 0.0
    followed: int = 0
    """Images that were not broken and whose loss is known at every iterate; 0 if there are too few
    iterates to judge."""
    rising: int = 0
    """How many of the `followed` images had a best loss that still rose in the last iterates."""
    judged: int = 0
    """Images that were not broken and whose log-odds are known without attack and on the path."""
    backwards: int = 0
    """How many of the `judged` images had lower log-odds of the attack's goal at every iterate after
    the first than without attack: its target was less likely, or without a target the true class was
    more likely."""
    passes: int = 1
    """Forward passes that logits were averaged over; more than one for a random model."""
    untouched: int = 0
    """Images that were not broken and came back as they were given (within `UNTOUCHED`)."""
    untouched_in: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """For each of the `groups` of the attacked images, in the batches that have untouched ones: how
    many came back untouched, and how many were not broken."""
    broke_within: Mapping[int, int] = field(default_factory=dict)
    """How many images were broken within so many queries, if the attack counts them."""
    may_be_flat: bool | None = None
    """Whether the attack's loss may have a gradient of exactly zero on its way, though the model
    has one; None if the attack does not say it."""

    def as_json(self) -> dict[str, Any]:
        values = asdict(self) | {"excess": self.excess if math.isfinite(self.excess) else None}
        later = {"no_answer": 0, "judged": 0, "backwards": 0, "untouched": 0, "untouched_in": {}}
        absent = {"may_be_flat": None, "broke_within": {}, **later}
        return {key: value for key, value in values.items() if key not in absent or value != absent[key]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Trace:
        counts = {name: (a, b) for name, (a, b) in values.get("untouched_in", {}).items()}
        excess = math.inf if values["excess"] is None else values["excess"]
        queries = {int(mark): count for mark, count in values.get("broke_within", {}).items()}
        return Trace(**{**values, "excess": excess, "untouched_in": counts, "broke_within": queries})


class Probe(Protocol):
    """Runs further attacks on a fixed sample of the images, for audits that need them.

    images are (m, C, H, W), labels (m,), drawn at random, all classes in turn; the model classifies
    all of them correctly without attack. Every call costs time; `spent` is the sum.
    """

    images: Tensor
    labels: Tensor
    positions: NDArray[np.int64]
    """(m,) the positions of the images among those of the result."""
    given: tuple[Tensor, Tensor]
    """All images of the result and their labels, in its order."""
    norm: Norm
    radii: tuple[float, ...]
    protocol: Sequence[Any]
    """The attacks of the result, by name and options."""
    longer: Sequence[Any]
    """The attacks of `protocol` that take steps or queries, with twice as many."""
    surrogate: Any
    """Another model for the same images, or None."""
    spent: float
    """Seconds."""
    disturbed: list[str]
    """Changes that attacks left behind (of modes, gradients, …), in words."""

    def among(self, positions: NDArray[np.int64]) -> Probe:
        """The same probe with a sample from the images at these positions instead."""
        ...

    def broken(
        self, attacks: Sequence[Any], eps: float, *, to_end: bool = False
    ) -> tuple[NDArray[np.bool_], list[Trace]]:
        """(m,) which images these attacks break at a radius, and a trace of each attack.

        Each attack gets the images that the earlier ones did not break. An infinite radius allows
        every image of the box. With `to_end`, images are not dropped once they are broken, and only
        the first few are attacked; the returned images can then be compared with the iterates. The
        attacks start from scratch: they use nothing of the result.
        """
        ...
