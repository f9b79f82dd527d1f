"""Reads the name of an attack as tables write it: "PGD-20", "PGD (20 steps)", "APGD-CE ε=8/255"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stresslens.core.ball import Norm

NUMBER = r"\d*\.?\d+(?:e-?\d+)?(?:\s*/\s*\d+)?"
EPS = re.compile(rf"(?<![a-z])(?:ε|ϵ|eps(?:ilon)?|radius)\s*[=:]?\s*({NUMBER})", re.IGNORECASE)
STEP_SIZE = re.compile(rf"(?:α|alpha|step size)\s*[=:]?\s*{NUMBER}", re.IGNORECASE)
STEPS = re.compile(
    r"(?P<word>pgd|bim|mim|i-?fgsm|apgd(?:[\s_-]?(?:ce|t|dlr))?|c&?w)[\s_-]*\^?\{?(?P<of_word>\d+)\}?(?![\d.]|\s*/)"
    r"(?:\s*[x×-]\s*(?P<starts>\d+)(?![\d.]|\s*/)|\s*steps\b)?"
    r"|(?P<before>\d+)[\s-]*(?:steps?|iterations?|iters?)\b|\b(?:steps|iterations|iters)\s*[=:]?\s*(?P<behind>\d+)",
    re.IGNORECASE,
)
RESTARTS = re.compile(
    r"(\d+)\s*(?:random\s+)?(?:re)?starts?\b|\brestarts?\s*[=:]?\s*(\d+)|\bx\s*(\d+)$", re.IGNORECASE
)
QUERIES = re.compile(
    r"(\d[\d,]*)\s*(k?)\s*quer(?:ies|y)\b|\bqueries\s*[=:]?\s*(\d[\d,]*)\s*(k?)"
    r"|(?<=square)[\s_-]*(\d[\d,]*)\s*(k?)\b",
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

    So the name is the same for every radius and number of steps. `eps` is as written ("8/255").
    """

    name: str
    eps: str | None
    steps: int | None
    restarts: int | None
    queries: int | None
    norm: Norm | None


def read_label(text: str) -> AttackLabel:
    """Reads the name of an attack or of a column; what it does not say is None."""
    radius = EPS.search(text)
    rest = EPS.sub("", text)
    steps = STEPS.search(rest)
    restarts, queries = RESTARTS.search(rest), QUERIES.search(rest)
    starts = steps["starts"] if steps else None
    if starts is None and restarts is not None:
        starts = next(group for group in restarts.groups() if group)
    return AttackLabel(
        _bare_name(rest),
        radius[1] if radius else None,
        int(steps["of_word"] or steps["before"] or steps["behind"]) if steps else None,
        int(starts) if starts else None,
        _thousands(queries) if queries else None,
        norm_in(text),
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
    text = re.sub(r"\([\s,;]*\)", "", re.sub(r"[\s_]+", " ", text))
    return re.sub(r"[\s,;:@()=^-]+$", "", text).strip(" -,").lower()


def _thousands(match: re.Match[str]) -> int:
    number, thousand = next((n, k) for n, k in zip(match.groups()[::2], match.groups()[1::2]) if n)
    return int(number.replace(",", "")) * (1000 if thousand else 1)
