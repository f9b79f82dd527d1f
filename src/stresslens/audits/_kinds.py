"""What kind of attack a name in a table or a protocol means."""

from __future__ import annotations

import re
from typing import Literal

from stresslens.core.evidence import CLEAN

Kind = Literal["clean", "random", "black box", "single step", "iterative", "smallest", "other"]

_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("smallest", ("deepfool", "carlini", "fab", "cw", "fmn", "ddn")),
    ("black box", ("square", "transfer", "hopskip", "boundary", "nes", "spsa", "simba", "blackbox")),
    ("iterative", ("pgd", "bim", "ifgsm", "ifgm", "mim", "autoattack", "iterative")),
    ("single step", ("fgsm", "fgm", "singlestep")),
    ("random", ("noise", "random", "gauss", "uniform")),
)
"""In this order: "I-FGSM" is iterative, "random-start PGD" too."""


def kind_of(attack: str) -> Kind:
    """From words of the attack's name; "other" where it says nothing."""
    if attack == CLEAN:
        return "clean"
    letters = re.sub(r"[^a-z]", "", attack.lower())
    if letters in ("aa", "auto", "standard"):
        return "iterative"
    return next((kind for kind, words in _WORDS if any(word in letters for word in words)), "other")


def aimed(attack: str) -> bool:
    """Whether the name says that the attack drives at a class of its choice, which makes it weaker than one that need not."""
    words = attack.lower()
    return any(word in words for word in ("least", "target")) and "dlr" not in words and "untarget" not in words
