from __future__ import annotations

from stresslens.core.class_names import alike
from stresslens.core.data import Data
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding


def class_names(data: Data) -> Finding:
    """Class names that differ only by case, blanks or Unicode form."""
    groups, n = alike(data.classes), len(data.classes)
    if not groups:
        evidence = f"the names of {n} classes differ by more than case, blanks and Unicode form"
        return no_sign("class names", evidence, n)
    same = [" = ".join(map(repr, group)) for group in groups]
    return sign(
        "class names",
        f"{sum(map(len, groups))} of {n} class names differ from another only by case, blanks or Unicode "
        f"form: {'; '.join(same[:3])}",
        n,
        "merge the classes if they are one, or rename them",
        items=same,
    )
