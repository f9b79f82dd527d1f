"""What is wrong with given adversarial images: the findings of a recount."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stresslens.core.answers import NO_ANSWER
from stresslens.core.ball import Norm
from stresslens.core.types import Estimate, Finding

EIGHT_BIT = 1 / 255
STILL = 0.01
"""An image that moved by less than this share of its radius counts as untouched."""
REACHED = 0.8
"""Failed attempts whose largest perturbation is below this share of the radius did not use it."""
CHANCE = 1e-6
"""Something counts as no chance if its probability is below this."""
MANY = 100
"""From so many images on it is odd that the model has every label right."""


@dataclass(frozen=True)
class Recount:
    """What a recount knows of n entries, each an image with or without an adversarial one.

    All tensors are (n,), on the CPU.
    """

    image: Tensor
    """Equal for entries of the same image."""
    labels: Tensor
    answers: Tensor
    """The model's class for the original, or NO_ANSWER."""
    adversarial_answers: Tensor
    listed: Tensor
    """Whether there is an adversarial image."""
    finite: Tensor
    in_box: Tensor
    inside: Tensor
    """Whether the adversarial image is finite, inside the box and inside the ball."""
    broken: Tensor
    size: Tensor
    """The norm of the perturbation."""
    moved: Tensor
    """The largest change of a pixel."""
    radius: Tensor
    norm: Norm
    extremes: tuple[float, float]
    """The lowest and the highest value of an adversarial image."""
    as_bytes: bool
    """Whether the adversarial images were stored in 8 bits."""

    @property
    def right(self) -> Tensor:
        return self.answers == self.labels

    @property
    def distinct(self) -> int:
        return len(torch.unique(self.image))

    @property
    def untouched(self) -> Tensor:
        """Whether the adversarial image equals its original, up to the rounding of 8 bits."""
        exact = EIGHT_BIT / 2 + 1e-6 if self.as_bytes else 1e-6
        return self.listed & self.finite & (self.moved <= exact)


def findings_of(
    recount: Recount, robust: Estimate, n_requested: int | None, claimed: float | None, *, true_labels: bool
) -> list[Finding]:
    """A finding for each check. `true_labels`: the labels are known to be those of the data."""
    m, n = int(recount.listed.sum()), max(n_requested or 0, recount.distinct)
    findings = [
        _not_finite(recount, m),
        _box(recount, m),
        _ball(recount, m),
        _repeated(recount, n),
        _dropped(recount, m, n),
        _untouched(recount, m),
        _unused_radius(recount, m),
        _no_answer(recount, m),
    ]
    if not true_labels:
        findings.append(_labels(recount))
    if recount.as_bytes:
        evidence = (
            f"the images are stored in 8 bits, which moves a pixel by up to {EIGHT_BIT / 2:.4f}: "
            "some attacks may be undone"
        )
        findings.append(checked("8 bits", m, True, evidence, "Store float32.", "minor"))
    if claimed is not None:
        differs = abs(claimed - robust.value) * robust.n >= 2
        evidence = f"claimed {100 * claimed:.1f} %, recounted {100 * robust.value:.1f} % of {robust.n} images"
        remedy = "Publish the recounted figure, or the images that the claim rests on."
        findings.append(checked("claimed accuracy", m, differs, evidence, remedy))
    return findings


def checked(
    audit: str,
    n: int,
    wrong: bool,
    evidence: str,
    remedy: str,
    severity: Literal["minor", "serious"] = "serious",
) -> Finding:
    """A finding on n images; without a remedy if nothing is wrong."""
    if wrong:
        return Finding(audit, "sign", severity, evidence, n, remedy)
    return Finding(audit, "no sign", "none", evidence, n, "")


def compare_labels(recount: Recount, given: Tensor, labels: Tensor) -> Finding | None:
    """A finding if a file's labels (n,) differ from those of the split."""
    differ = given != labels
    if not differ.any():
        return None
    source = "they may be the model's own predictions"
    if (given == recount.answers)[differ].all():
        source = "there they are the model's own predictions without attack"
    elif (given == recount.adversarial_answers)[differ].all():
        source = "there they are the model's answers to the adversarial images"
    return checked(
        "labels",
        len(labels),
        True,
        f"{int(differ.sum())} of {len(labels)} labels in the file differ from the split's: {source}; "
        "the split's labels count",
        "Attack the true labels; an image that is misclassified without attack counts as broken.",
    )


def _not_finite(recount: Recount, m: int) -> Finding:
    bad = int((~recount.finite).sum())
    return checked("finite", m, bad > 0, f"{bad} of {m} images hold NaN or infinity", "Attack them again.")


def _box(recount: Recount, m: int) -> Finding:
    outside = int((recount.finite & ~recount.in_box).sum())
    low, high = recount.extremes
    hint = "Clamp to [0, 1] in every step; these images are not counted."
    if low >= 0 and high > 2:
        hint = "Divide by 255: images lie in [0, 1]. These images are not counted."
    elif low < -0.5:
        hint = "Put the normalisation into the model, and give images in [0, 1]; these are not counted."
    evidence = f"{outside} of {m} images leave [0, 1]" + (
        f" (values from {low:.3g} to {high:.3g})" if outside else ""
    )
    return checked("box", m, outside > 0, evidence, hint)


def _ball(recount: Recount, m: int) -> Finding:
    outside = recount.in_box & ~recount.inside
    fooled = recount.right & (recount.adversarial_answers != recount.labels) & recount.listed
    return checked(
        "ball",
        m,
        bool(outside.any()),
        f"{int(outside.sum())} of {m} images lie outside the ball, "
        f"the farthest by {max(float((recount.size - recount.radius).max()), 0):.4g}; "
        f"{int((fooled & ~recount.inside).sum())} would fool the model there",
        "Project onto the ball around the original image after every step, in pixel units; "
        "these images are not counted.",
    )


def _repeated(recount: Recount, n: int) -> Finding:
    entries, distinct = len(recount.image), recount.distinct
    most = int(torch.unique(recount.image, return_counts=True)[1].max()) if entries else 0
    evidence = f"{entries} entries are {distinct} distinct image{'s' if distinct != 1 else ''}"
    if entries > distinct:
        evidence += (
            f", one of them {most} times; an image counts once, as broken if any of its adversarial "
            "images breaks it"
        )
    return checked(
        "repeated images",
        entries,
        entries > distinct,
        evidence,
        "Attack every image of the split once; copies are no further evidence.",
        "minor" if distinct >= n and entries - distinct <= distinct else "serious",
    )


def _dropped(recount: Recount, m: int, n: int) -> Finding:
    images = recount.distinct
    return checked(
        "dropped images",
        m,
        images < n,
        f"{images} images of {n} asked for" if images < n else f"all {n} images are there",
        "A last partial batch, or failures left out: attack every image and count the missing "
        "as not robust or not attacked.",
        "minor",
    )


def _untouched(recount: Recount, m: int) -> Finding:
    """Were all images attacked? One that is right, is not broken and did not move either was not
    attacked, or its attack failed and only successes were returned, as AutoAttack does. Then every
    image that moved is broken, and images that did not move come in no long row."""
    still = recount.listed & recount.finite & (recount.untouched | (recount.size <= STILL * recount.radius))
    attackable = recount.listed & recount.right & (recount.radius > 0)
    left = attackable & still & ~recount.broken
    failed = attackable & ~still & ~recount.broken & recount.inside
    moved = int((attackable & ~still).sum())
    count, same = int(left.sum()), int(recount.untouched.sum())
    evidence = f"{same} of {m} adversarial images equal their originals"
    wrong = False
    if count >= 2:
        evidence += f", and {count} that are right without attack did not move at all or hardly"
        if moved == 0:
            wrong, why = True, "no image was attacked, or no attempt succeeded and the others were left out"
        elif int(failed.sum()) >= 2:
            wrong = True
            why = f"{int(failed.sum())} failed attempts did move, so these were not attacked"
        elif (row := _longest_row(recount, left, attackable)) is not None:
            wrong, why = True, f"{row} of them in a row, which success at the rate of the others rules out"
        else:
            why = "as an attack leaves them that returns its successes only"
        evidence += f": {why}"
    return checked(
        "untouched images",
        m,
        wrong,
        evidence,
        "Attack every image that is right without attack, and give what each attempt returned, also where "
        "it failed. A gradient of exactly zero leaves an image untouched too.",
        "serious" if count >= 0.01 * int(attackable.sum()) else "minor",
    )


def _longest_row(recount: Recount, left: Tensor, attackable: Tensor) -> int | None:
    """The length of the longest row of images that did not move, if chance does not explain it at
    each class's own rate of success; None otherwise."""
    rows = attackable.nonzero().flatten()
    labels, broken = recount.labels[rows], recount.broken[rows].double()
    k = int(labels.max()) + 1
    total = torch.zeros(k, dtype=torch.float64).index_add_(0, labels, torch.ones_like(broken))
    success = torch.zeros(k, dtype=torch.float64).index_add_(0, labels, broken)
    rate = ((success + 0.5) / (total + 1))[labels]
    least, length, row, log_p = 0.0, 0, 0, 0.0
    for miss, logarithm in zip(left[rows].tolist(), torch.log1p(-rate).tolist()):
        row, log_p = (row + 1, log_p + logarithm) if miss else (0, 0.0)
        if log_p < least:
            least, length = log_p, row
    return length if least + math.log(max(len(rows), 1)) < math.log(CHANCE) else None


def _unused_radius(recount: Recount, m: int) -> Finding:
    """Did the failed attempts go to the edge? Attacks along the gradient do."""
    failed = recount.listed & recount.right & recount.inside & ~recount.broken & (recount.radius > 0)
    failed &= recount.size > STILL * recount.radius
    share = float((recount.size / recount.radius.clamp_min(1e-12))[failed].max()) if failed.any() else 1.0
    few = int(failed.sum()) < 8 or recount.norm == "l1"
    evidence = (
        "fewer than 8 failed attempts moved"
        if few
        else f"the largest perturbation of {int(failed.sum())} failed attempts is {share:.3g} of the radius"
    )
    return checked(
        "unused radius",
        m,
        not few and share < REACHED,
        evidence,
        "The attack had a smaller radius than the one it is counted at, or its steps are too short: attack "
        "at this radius, in pixel units.",
    )


def _no_answer(recount: Recount, m: int) -> Finding:
    clean = int((recount.answers == NO_ANSWER).sum())
    broken = int((recount.broken & (recount.adversarial_answers == NO_ANSWER)).sum())
    return checked(
        "no answer",
        m,
        clean + broken > 0,
        f"the model's scores are not finite (NaN or infinity) for {clean} of {len(recount.image)} originals, "
        f"and for {broken} adversarial images that count as breaking theirs",
        "No answer counts as wrong. Find where the forward pass leaves the numbers.",
        "serious" if clean + broken >= max(2, 0.01 * len(recount.image)) else "minor",
    )


def _labels(recount: Recount) -> Finding:
    """Are the labels the model's own answers? That can be told where they fit too well."""
    n, listed = len(recount.labels), recount.listed
    after = bool((recount.adversarial_answers == recount.labels)[listed].all())
    healed = int((listed & ~recount.right & (recount.adversarial_answers == recount.labels)).sum())
    remedy = "Attack the true labels; an image that is misclassified without attack counts as broken."
    if after and healed >= 2:
        evidence = f"all {n} labels are the model's answers to the adversarial images"
        return checked("labels", n, True, evidence + f", also for {healed} wrong without attack", remedy)
    perfect = n >= MANY and bool(recount.right.all())
    evidence = f"{int(recount.right.sum())} of {n} labels are the model's answers without attack"
    return checked("labels", n, perfect, evidence, remedy, "minor")
