from __future__ import annotations

import re
from pathlib import PurePosixPath

from stresslens.core.data import Data
from stresslens.core.findings import LISTED, no_sign, not_checked, sign
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Count, Finding

AUDIT = "file names"


def file_names(data: Data, pictures: PictureFacts, *, letters: Count = 3) -> Finding:
    """Files whose name has the name of another class than their label.

    Names are compared by whole words, without case; class names of fewer than so many `letters` are not
    looked for. A file `dog_12.jpg` in the folder `cat` is probably in the wrong folder. Where file names
    give the label, a network does not see it, but people who label or check by the name do.
    """
    splits = data.splits.values()
    if not all("file" in split.columns for split in splits):
        return not_checked(AUDIT, "the images have no file names")
    words = {k: _words(name) for k, name in enumerate(data.classes)}
    words = {k: name for k, name in words.items() if sum(map(str.isalpha, name)) >= letters}
    if not words:
        return not_checked(AUDIT, f"no class name has {letters} letters")
    own = others = 0
    wrong = []
    named: dict[str, set[int]] = {}
    for k, name in words.items():
        named.setdefault(name.strip(), set()).add(k)
    longest = "|".join(sorted(map(re.escape, named), key=len, reverse=True))
    pattern = re.compile(rf"(?<= )(?:{longest})(?= )")
    files = [str(file) for split in splits for file in split.columns["file"]]
    for place, file in enumerate(files):
        found = set().union(*(named[match] for match in pattern.findall(_words(PurePosixPath(file).stem))))
        if int(pictures.labels[place]) in found:
            own += 1
        elif found:
            others += 1
            wrong.append((place, sorted(found)))
    n = len(files)
    if not wrong:
        evidence = f"{own} of {n} file names have the name of their class, none only that of another"
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        f"{others} of {n} file names have the name of another class and not of their own ({own} have their "
        "own)",
        n,
        "look at them: their labels are probably wrong (corrections: FILE changes labels), or name files "
        "without the class",
        serious=others > max(1, n / 1000),
        items=[
            f"{files[place]} ({data.classes[pictures.labels[place]]}): named "
            f"{' and '.join(data.classes[k] for k in found)}"
            for place, found in wrong[:LISTED]
        ],
        places=[place for place, _ in wrong[:LISTED]],
    )


def _words(name: str) -> str:
    """The words of a name without case, each between blanks: CamelCase, digits, - and _ divide words."""
    divided = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", name)
    words = re.sub(r"[\W_]+", " ", divided.casefold()).strip()
    return f" {words} "
