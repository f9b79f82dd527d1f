"""Shared by the data sets of digits: scikit-learn's file of 1,797 grey images of 8×8 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def digit_images() -> tuple[Tensor, Tensor]:
    """uint8 (1797, 8, 8) images with values 0 to 16, and int64 (1797,) labels, as scikit-learn's
    `load_digits` has them.

    The file is read without importing scikit-learn, which takes longer than a small training. A
    version that keeps it elsewhere is imported.
    """
    package = find_spec("sklearn")
    file = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if file is not None and file.is_file():
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].long()
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.from_numpy(bunch.images).to(torch.uint8), torch.from_numpy(bunch.target).long()
