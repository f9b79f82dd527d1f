"""Reads the name of an attack as tables write it: "PGD-20", "PGD (20 steps)", "APGD-CE ε=8/255"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stresslens.core.ball import Norm

NUMBER = r"\d*[.,]?\d+(?:e-?\d+)?(?:\s*/\s*\d+)?"
WHOLE = r"(?<![\d.'])(?:\d{1,3}(?:[.,']\d{3}){1,3}|\d{1,9})(?!\d|\.\d|,\d{3}(?!\d))"
"""A whole number, also with marks between its thousands."""
EPS = re.compile(rf"(?<![a-z])(?:ε|ϵ|eps(?:ilon)?|radius)\s*[=:]?\s*({NUMBER})", re.IGNORECASE)
STEP_SIZE = re.compile(rf"(?:α|alpha|step size)\s*[=:]?\s*{NUMBER}", re.IGNORECASE)
BARE_EPS = re.compile(
    r"(?:(?<=[\s@])|(?<=[(\[,;]))(\d+(?:\.\d+)?\s*/\s*255)(?=\s*(?:[)\],;]|$))"
    r"|[(\[](?:[^()\[\]]*[,;])?\s*(0?\.\d+)(?=\s*[)\],;])"
)
"""A radius without its sign: a number of 255ths, or in brackets a number below 1."""
STEPS = re.compile(
    r"(?P<word>pgd|bim|mim|i-?fgsm|apgd(?:[\s_-]?(?:ce|t|dlr))?|c&?w)[\s_-]*\^?"
    rf"\{{?(?P<of_word>{WHOLE})\}}?(?!\.|\s*/)"
    rf"(?:\s*[x×-]\s*(?P<starts>{WHOLE})(?!\.|\s*/)|\s*steps\b)?"
    rf"|(?P<before>{WHOLE})[\s-]*(?:steps?|iterations?|iters?)\b"
    rf"|\b(?:steps|iterations|iters)\s*[=:]?\s*(?P<behind>{WHOLE})",
    re.IGNORECASE,
)
RESTARTS = re.compile(
    rf"({WHOLE})\s*(?:random\s+)?(?:re)?starts?\b|\brestarts?\s*[=:]?\s*({WHOLE})|\bx\s*({WHOLE})$",
    re.IGNORECASE,
)
QUERIES = re.compile(
    rf"({WHOLE})\s*(k?)\s*quer(?:ies|y)\b|\bqueries\s*[=:]?\s*({WHOLE})\s*(k?)"
    rf"|(?<=square)[\s_-]*({WHOLE})\s*(k?)\b",
    re.IGNORECASE,
)
NORMS: dict[str, Norm] = {
    "linf": "linf",
    "l∞": "linf",
    "l_inf": "linf",
    "l-inf": "linf",
    "inf": "linf",
    "l2": "l2",
    "l_2": "l2",
    "ℓ2": "l2",
    "ℓ∞": "linf",
    "l1": "l1",
    "l_1": "l1",
    "ℓ1": "l1",
}


@dataclass(frozen=True)
class AttackLabel:
    """An attack's name in lower case, without its settings, and the settings that the label gives.

    So the name is the same for every radius and number of steps. `eps` is as written ("8/255"). `bare`:
    it has no sign such as ε, so that a column of radii knows better.
    """

    name: str
    eps: str | None
    steps: int | None
    restarts: int | None
    queries: int | None
    norm: Norm | None
    bare: bool = False


def read_label(text: str) -> AttackLabel:
    """Reads the name of an attack or of a column; what it does not say is None."""
    radius = EPS.search(text)
    rest, eps = EPS.sub("", text), radius[1] if radius else None
    if bare := eps is None and BARE_EPS.search(STEP_SIZE.sub("", rest)):
        eps = bare[1] or bare[2]
        rest = rest.replace(eps, "", 1)
    steps = STEPS.search(rest)
    restarts, queries = RESTARTS.search(rest), QUERIES.search(rest)
    starts = steps["starts"] if steps else None
    if starts is None and restarts is not None:
        starts = next(group for group in restarts.groups() if group)
    return AttackLabel(
        _bare_name(rest),
        eps,
        _whole(steps["of_word"] or steps["before"] or steps["behind"]) if steps else None,
        _whole(starts) if starts else None,
        _thousands(queries) if queries else None,
        norm_in(text),
        bool(bare),
    )


def norm_in(text: str) -> Norm | None:
    """The norm that a text names, if it names one."""
    return next(
        (
            norm
            for word, norm in NORMS.items()
            if re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z0-9])", text.lower())
        ),
        None,
    )


def _bare_name(text: str) -> str:
    """The name without the number of steps, restarts and queries, step size and norm."""
    for pattern in (STEP_SIZE, RESTARTS, QUERIES):
        text = pattern.sub("", text)
    text = STEPS.sub(lambda match: match["word"] or "", text)
    text = re.sub(r"(?<![a-z])[lℓ][-_]?(?:inf|∞|2|1)(?![a-z0-9])|%|\bwith\s*$", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\([\s,;]*\)|\[[\s,;]*\]", "", re.sub(r"[\s_]+", " ", text))
    text = re.sub(r"([(\[])[\s,;]+|[\s,;]+(?=[)\]])", r"\1", text)
    bare = re.sub(r"[\s,;:@()=^-]+$", "", text).strip(" -,").lower()
    return f"{bare})" if bare.count("(") > bare.count(")") else bare


def _thousands(match: re.Match[str]) -> int:
    number, thousand = next((n, k) for n, k in zip(match.groups()[::2], match.groups()[1::2]) if n)
    return _whole(number) * (1000 if thousand else 1)


def _whole(number: str) -> int:
    return int(re.sub(r"\D", "", number))
