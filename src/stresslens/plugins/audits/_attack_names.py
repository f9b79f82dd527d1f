"""Kinds of attacks (single step, iterative, black box, …) from their names in tables and
protocols."""

from __future__ import annotations

import re
from typing import Literal

from stresslens.core.evidence import CLEAN

Kind = Literal["clean", "certified", "random", "black box", "single step", "iterative", "smallest", "other"]

_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        "certified",
        ("certified", "certificate", "certification", "verified", "provable", "provably", "smoothing"),
    ),
    ("certified", ("lower bound", "interval bound", "ibp", "crown", "deep poly", "milp", "lipschitz")),
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
        (
            *("deep fool", "carlini", "c w", "fab", "fmn", "ddn", "fast minimum norm"),
            *("decoupled direction", "linear region", "linear regions"),
        ),
    ),
    ("single step", ("fgsm", "fgm", "rfgsm", "ffgsm", "fast gradient", "gradient sign")),
    ("random", ("noise", "random", "gauss", "gaussian", "uniform")),
)
"""The first match counts: "I-FGSM" and "random-start PGD" are iterative, and so is AutoAttack. A
name may omit the spaces of a phrase."""


def attack_kind(attack: str) -> Kind:
    """The kind of an attack, from whole words of its name; "other" if none is known."""
    if attack == CLEAN:
        return "clean"
    if attack.lower() in ("auto", "standard"):
        return "iterative"
    return next((kind for kind, phrases in _WORDS if _words(attack, phrases)), "other")


def is_part(part: str, whole: str) -> bool:
    """Whether `whole` is the worst case over several attacks, and `part` is one of them by its name.

    AutoAttack consists of APGD, FAB and Square. A "worst case" has every attack as its part, and
    "PGD + C&W" those that it names, if each is an attack ("PGD + EOT" is one attack).
    """
    if part == whole or attack_kind(part) in ("clean", "certified"):
        return False
    if _words(whole, ("worst", "worst case", "union", "ensemble", "all", "combined", "min", "minimum")):
        return True
    named = [name.strip() for name in re.split(r"[+∪]", whole)]
    if len(named) > 1 and all(attack_kind(name) not in ("other", "random") for name in named):
        return part.strip() in named
    return is_autoattack(whole) and _words(part, ("apgd", "auto pgd", "apgdt", "apgdce", "fab", "square"))


def is_autoattack(attack: str) -> bool:
    return _words(attack, ("auto attack", "aa", "standard protocol")) or attack.lower() == "auto"


def _words(attack: str, phrases: tuple[str, ...]) -> bool:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", attack)  # FastGradientMethod, LinfPGD
    name = " ".join(re.findall(r"[a-z]+", spaced.lower()))
    return any(_contains(name, phrase) for phrase in phrases)


def _contains(name: str, phrase: str) -> bool:
    return re.search(rf"\b{phrase.replace(' ', ' ?')}\b", name) is not None


def targeted_success(attack: str) -> bool:
    """Whether the name says that the attack is targeted, which makes it weaker than an untargeted
    one."""
    words = attack.lower()
    return (
        any(word in words for word in ("least", "target")) and "dlr" not in words and "untarget" not in words
    )
