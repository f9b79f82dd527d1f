from __future__ import annotations

import torch

from stresslens.core.answers import NO_ANSWER, predicted
from stresslens.core.attack_base import attacked
from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._forward import logits_of

AUDIT = "surrogate"


def surrogate(probe: Probe) -> Finding:
    """The surrogate of a transfer attack does not know the images.

    Its gradients then lead nowhere, and "transfer breaks nothing" says nothing. A sign if, of the
    images that the model classifies correctly, it is right on no more than it would be by always
    naming their most frequent class, or if it has no answer to some of them. If a fixed exchange of
    its classes makes it right on most images, they are in another order.
    """
    if probe.surrogate is None:
        return not_checked(AUDIT, "no surrogate is given")
    y, n = probe.labels, len(probe.labels)
    with attacked(probe.surrogate):
        logits = logits_of(probe.surrogate, probe.images)
    answers = predicted(logits)
    right, missing = int((answers == y).sum()), int((answers == NO_ANSWER).sum())
    known, classes = answers != NO_ANSWER, logits.shape[1]
    pairs = (y[known] * classes + answers[known]).bincount(minlength=classes**2).reshape(classes, classes)
    exchanged, most = int(pairs.amax(0).sum()), int(y.bincount().max())
    evidence = f"the surrogate is right on {right} of {n} images that the model classifies correctly"
    if missing:
        evidence += f" and has no answer (not finite) to {missing}"
    if right > most and not missing:
        return no_sign(AUDIT, evidence, n)
    if 2 * exchanged > n > 2 * right and len(torch.unique(pairs.argmax(0))) > 1:
        evidence += f"; with its classes in another order it would be on {exchanged}"
    return sign(
        AUDIT,
        f"{evidence} (their most frequent class: {most})",
        n,
        "Give a surrogate that was trained on the same classes in the same order and takes images in [0, 1].",
    )
