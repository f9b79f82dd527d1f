from __future__ import annotations

import itertools

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.text import counted
from stresslens.core.types import Finding

AUDIT = "group leakage"


def group_leakage(data: Data) -> Finding:
    """Groups (patients, videos, places: the column or option `group`) with images in two splits."""
    columns = {name: split.columns.get("group") for name, split in data.splits.items()}
    known = {name: set(column.tolist()) for name, column in columns.items() if column is not None}
    if len(known) < 2:
        return not_checked(AUDIT, "no column or option `group` says which images belong together")
    shared = sorted(set().union(*(a & b for a, b in itertools.combinations(known.values(), 2))), key=str)
    n = sum(len(split) for split in data.splits.values())
    if not shared:
        groups = counted(len(set().union(*known.values())), "group")
        return no_sign(AUDIT, f"{groups}, each in one split", n)
    return sign(
        AUDIT,
        f"{counted(len(shared), 'group has', 'groups have')} images in more than one split",
        n,
        "give no split of your own, or divide by group",
        items=[
            f"{group}: in {' and '.join(name for name, values in known.items() if group in values)}"
            for group in shared
        ],
    )
