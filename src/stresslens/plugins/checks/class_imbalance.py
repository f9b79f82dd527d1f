from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding, Positive


def class_imbalance(data: Data, *, minor: Positive = 3.0, serious: Positive = 10.0) -> Finding:
    """The ratio of the largest to the smallest class of the training images; a sign from `minor` on,
    serious from `serious` on."""
    counts = data.train.labels.cpu().bincount(minlength=len(data.classes)).numpy()
    present = counts[counts > 0]
    ratio = present.max() / present.min()
    evidence = _balance(data, counts)
    if ratio < minor:
        return no_sign("class imbalance", evidence, len(data.train))
    remedy = "train.balance: weights or sampling; read balanced accuracy beside accuracy"
    return sign("class imbalance", evidence, len(data.train), remedy, serious=ratio >= serious)


def _balance(data: Data, counts: NDArray[np.int64]) -> str:
    """How many images the largest and the smallest class that is there have (`counts` by class)."""
    large = int(counts.argmax())
    small = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    if counts[large] == counts[small]:
        return f"the {(counts > 0).sum()} classes have {counts[large]} training images each"
    times = f"{counts[large] / counts[small]:.1f} times"
    many = "about as many images as" if times == "1.0 times" else f"{times} the images of"
    return (
        f"the largest training class ({data.classes[large]}, {counts[large]}) has {many} the smallest "
        f"({data.classes[small]}, {counts[small]})"
    )
