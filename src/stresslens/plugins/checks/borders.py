from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.data import Data
from stresslens.core.findings import LISTED, no_sign, sign
from stresslens.core.picture_facts import Measures, PictureFacts
from stresslens.core.types import Finding, Share
from stresslens.metrics.intervals import wilson
from stresslens.plugins.checks._planted import in_words, planted_found

AUDIT = "borders"


def borders(
    data: Data, pictures: PictureFacts, *, width: Share = 0.02, apart: Share = 0.5, share: Share = 0.01
) -> Finding:
    """Borders of one colour, such as the black bars of films, and classes that have them.

    A border is at least one line of pixels and the share `width` of the side, on two opposite sides or
    all four, and ends abruptly (`core.picture_facts`); a plain background does not. Serious if a class
    has them and others do not: the share of its training images with a border is `apart` above that of
    the other classes, with the intervals (Wilson, 95 %) apart. Minor from `share` of all images on.
    Borders that are not of one colour are not looked for.
    """

    def rule(measures: Measures) -> NDArray[np.bool_]:
        wide = measures.borders >= width
        return (wide[:, 0] & wide[:, 1]) | (wide[:, 2] & wide[:, 3])

    has = rule(pictures.measures)
    found, n = np.flatnonzero(has), len(has)
    planted = {
        "black bars of 1/8 above and below": partial(_barred, grey=0.0),
        "white bars": partial(_barred, grey=1.0),
    }
    looked = in_words(planted_found(pictures, rule, planted), len(pictures.examples))
    own = _classes_with(has[pictures.part == 0], pictures.labels[pictures.part == 0], apart)
    if not own and len(found) <= share * n:
        return no_sign(AUDIT, f"{len(found)} of {n} images have a border; {looked}", n)
    lead = f"{len(found)} of {n} images have a border"
    if own:
        named = "; ".join(
            f"{data.classes[label]} {100 * rate:.0f} %, other classes {100 * others:.0f} %"
            for label, rate, others in own[:5]
        )
        lead += f", and not all classes alike (training images: {named})"
        found = found[np.isin(pictures.labels[found], [label for label, _, _ in own])]
    return sign(
        AUDIT,
        f"{lead}; {looked}",
        n,
        "cut the borders off; a network learns them as the mark of a class" if own else "cut the borders off",
        serious=bool(own),
        items=[pictures.names[k] for k in found[:LISTED]],
        places=found[:LISTED].tolist(),
    )


def _classes_with(
    has: NDArray[np.bool_], labels: NDArray[np.int64], apart: float
) -> list[tuple[int, float, float]]:
    """Classes that have borders far more often than the others: label, share, share of the others."""
    found = []
    for label in np.unique(labels):
        own, others = has[labels == label], has[labels != label]
        if not len(others):
            continue
        one, rest = wilson(int(own.sum()), len(own)), wilson(int(others.sum()), len(others))
        if one.value - rest.value >= apart and one.low > rest.high:
            found.append((int(label), one.value, rest.value))
    return sorted(found, key=lambda each: each[2] - each[1])


def _barred(x: Tensor, grey: float) -> Tensor:
    """Images with bars above and below, each an eighth of the height."""
    bar = max(1, x.shape[2] // 8)
    x = x.clone()
    x[:, :, :bar] = x[:, :, -bar:] = grey
    return x
