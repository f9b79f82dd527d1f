from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.text import counted, enumeration
from stresslens.core.types import Finding

AUDIT = "missing classes"


def missing_classes(data: Data) -> Finding:
    """Classes that have training images, but no validation or test images."""
    there = {name: set(split.labels.unique().tolist()) for name, split in data.splits.items()}
    held_out = {name: labels for name, labels in there.items() if name != "train"}
    if not held_out:
        return not_checked(AUDIT, "there are training images only")
    n = sum(len(data.splits[name]) for name in held_out)
    lacking = {name: sorted(there["train"] - labels) for name, labels in held_out.items()}
    lacking = {name: labels for name, labels in lacking.items() if labels}
    if not lacking:
        return no_sign(AUDIT, f"every class has {' and '.join(held_out)} images", n)
    told = [
        f"{counted(len(labels), 'class has', 'classes have')} no {name} image"
        for name, labels in lacking.items()
    ]
    return sign(
        AUDIT,
        f"{' and '.join(told)}, so nothing is known of them",
        n,
        f"add {' and '.join(lacking)} images of them",
        items=[
            f"{name}: {enumeration([data.classes[k] for k in labels], 50)}"
            for name, labels in lacking.items()
        ],
    )
