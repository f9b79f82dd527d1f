"""What the training images alone decide of how all image files are decoded: colours and white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core import bit_depth
from stresslens.core.data import Data, Split
from stresslens.core.image_cache import Order, Store


def _among(names: NDArray[Any], splits: Iterable[Split]) -> NDArray[np.bool_]:
    """(N,) whether the file of each name is in one of the splits. np.isin compares every pair of
    objects: minutes for 60,000 files."""
    files = {file for split in splits for file in split.columns["file"]}
    return np.fromiter((name in files for name in names), bool, len(names))


def settled_by_training(
    order: Order, store: Store, data: Data, *, auto_white: bool
) -> tuple[Order, list[str]]:
    """How the files are to be decoded, and notes on images that differ from the training images.

    `store` holds the images as `order` had them decoded, and `data` its division. A validation or test
    image decides nothing: in colours among grey training images it becomes grey, and pixels brighter
    than white become white.
    """
    facts = store.facts
    names = np.array([order.files.names[position] for position in store.positions], dtype=object)
    trained = _among(names, [data.train])
    used = _among(names, data.splits.values())
    notes = []
    coloured = facts["coloured"] & used & ~trained
    if order.channels is None and store.images.frame.channels == 3 and not facts["coloured"][trained].any():
        order = replace(order, channels=1)
        if coloured.any():
            notes.append(
                f"the training images are grey, and {int(coloured.sum())} other images in colours became "
                f"grey (first {names[coloured][0]}); `colours: rgb` keeps three channels"
            )
    deep = facts["peak"] > 0
    if (deep & used).any():
        largest = int(facts["peak"][trained].max())
        order = replace(order, white=bit_depth.white_for(largest) if auto_white and largest else order.white)
        above = int((facts["peak"] > order.white)[used & ~trained].sum())
        notes.append(bit_depth.settings_in_words(order.white, int((deep & used).sum()), largest, above))
    return order, notes
