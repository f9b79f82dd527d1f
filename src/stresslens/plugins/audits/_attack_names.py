"""What kind of attack a name in a table or a protocol means."""

from __future__ import annotations

import re
from typing import Literal

from stresslens.core.evidence import CLEAN

Kind = Literal["clean", "random", "black box", "single step", "iterative", "smallest", "other"]

_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("black box", ("transfer", "transferred", "transfers")),
    ("iterative", ("auto attack", "aa")),
    ("smallest", ("fast adaptive boundary",)),
    ("black box", ("square", "hop skip jump", "boundary", "nes", "spsa", "sim ba", "black box")),
    ("single step", ("single step", "one step")),
    (
        "iterative",
        ("pgd", "apgd", "apgdt", "apgdce", "auto pgd", "projected gradient", "iterative", "bim", "mim"),
    ),
    (
        "iterative",
        ("i fgsm", "mi fgsm", "ni fgsm", "di fgsm", "ti fgsm", "m fgsm", "i fgm", "mi fgm", "momentum fgsm"),
    ),
    (
        "smallest",
        ("deep fool", "carlini", "c w", "fab", "fmn", "ddn", "fast minimum norm", "decoupled direction"),
    ),
    ("single step", ("fgsm", "fgm", "rfgsm", "ffgsm", "fast gradient", "gradient sign")),
    ("random", ("noise", "random", "gauss", "gaussian", "uniform")),
)
"""In this order: "I-FGSM" is iterative, "random-start PGD" too, and AutoAttack whatever it is made
of. A name may leave out the blanks of a phrase."""


def attack_kind(attack: str) -> Kind:
    """From whole words of the attack's name; "other" where it says nothing."""
    if attack == CLEAN:
        return "clean"
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", attack)  # FastGradientMethod, LinfPGD
    name = " ".join(re.findall(r"[a-z]+", apart.lower()))
    if name in ("auto", "standard"):
        return "iterative"
    return next((kind for kind, phrases in _WORDS if any(_says(name, phrase) for phrase in phrases)), "other")


def _says(name: str, phrase: str) -> bool:
    return re.search(rf"\b{phrase.replace(' ', ' ?')}\b", name) is not None


def targeted_success(attack: str) -> bool:
    """Whether the name says that the attack drives at a class of its choice, which makes it weaker
    than one that need not."""
    words = attack.lower()
    return (
        any(word in words for word in ("least", "target")) and "dlr" not in words and "untarget" not in words
    )
