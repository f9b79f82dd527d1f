"""Tables of accuracies under attack as people write them: CSV, TSV or Markdown, long or wide."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stresslens.core.ball import Norm, check_radius, parse_radius
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.evidence import CLEAN, Row

COLUMNS: dict[str, tuple[str, ...]] = {
    "model": ("model", "network", "net", "architecture", "run", "defense", "defence", "method"),
    "trained": ("trained", "trained on", "training", "hardened on"),
    "attack": ("attack", "attacked by", "under"),
    "eps": ("eps", "epsilon", "ε", "ϵ", "radius"),
    "n": ("n", "images", "samples", "test images"),
    "norm": ("norm", "threat model"),
    "steps": ("steps", "iterations", "iters", "k"),
    "step size": ("step size", "alpha", "α", "step", "stepsize"),
    "accuracy": ("accuracy", "acc", "robust accuracy", "robust acc", "adversarial accuracy", "test accuracy"),
    "top-1": ("top-1", "top1", "top 1"),
    "top-5": ("top-5", "top5", "top 5"),
}
"""What a column is called, whatever its case; what follows in brackets ("accuracy (%)") is left out."""
SCORES = ("accuracy", "top-1", "top-5")
NO_ATTACK = (
    "",
    "-",
    "–",
    "—",
    "none",
    "no",
    "clean",
    "natural",
    "standard",
    "benign",
    "unattacked",
    "no attack",
)
EPS = re.compile(
    r"(?:ε|ϵ|eps(?:ilon)?|radius)\s*[=:]?\s*(\d*\.?\d+(?:e-?\d+)?(?:\s*/\s*\d+)?)", re.IGNORECASE
)
STEPS = re.compile(r"(?:pgd|bim|i-?fgsm|apgd|mi-?fgsm)[\s_-]*\^?(\d+)|(\d+)\s*steps", re.IGNORECASE)
NORMS: dict[str, Norm] = {
    "linf": "linf",
    "l∞": "linf",
    "l_inf": "linf",
    "l-inf": "linf",
    "inf": "linf",
    "l2": "l2",
    "l1": "l1",
}
ATTACK = re.compile(
    r"fgsm|fgm|pgd|bim|apgd|auto|square|fab|deepfool|carlini|c&w|\bcw\b|noise|attack|\baa\b|adversarial",
    re.IGNORECASE,
)


@dataclass
class Table:
    """Rows as read, and what had to be decided on the way, in words."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Column:
    """A column with figures: under which attack they were taken, as far as its name tells."""

    place: int
    name: str
    score: str
    attack: str | None
    eps: float | None
    steps: int | None
    norm: Norm | None


def read_table(
    path: Path, *, eps: float | None = None, n: int | None = None, norm: Norm | None = None
) -> Table:
    """The rows of a .csv, .tsv or .md file, or of any text with such a table; `eps`, `n` and `norm`
    are of rows that do not say.

    Long form: a row for each model, attack and radius, with columns named as in `COLUMNS`. Wide
    form: a row for each model, and a column for each attack, named like "PGD-40 ε=.05"; both may be
    mixed. A column "steps, ε, α" holds "20, 0.1, 0.01". Clean rows say none or clean, or have
    radius 0 and no attack. Raises DataError naming file and line.
    """
    lines = list(_lines(path))
    if len(lines) < 2:
        raise DataError(f"{path}: expected a line of column names and a line for each model or attack")
    (at, header), body = lines[0], lines[1:]
    named, figures = _columns(path, at, header)
    for line, cells in body:
        if len(cells) != len(header):
            raise DataError(
                f"{path}:{line}: {len(cells)} cells; the {len(header)} columns are {', '.join(header)}"
            )
    percent = _percent(path, body, figures)
    table = Table([], [f"accuracies are read as {'percent' if percent else 'shares of 1'}"])
    defaults = {"eps": eps, "n": n, "norm": norm}
    for line, cells in body:
        values = {
            key: cell
            for place, keys in named.items()
            for key, cell in _split(path, line, keys, cells[place]).items()
        }
        table.rows += [
            row
            for column in figures
            if (row := _row(path, line, values, column, cells[column.place], percent, defaults)) is not None
        ]
    if not table.rows:
        raise DataError(
            f"{path}: no accuracies were found in the columns {', '.join(column.name for column in figures)}"
        )
    return table


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells: the columns' names, then what stands below them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from None
    lines = text.splitlines()
    piped = [place for place, line in enumerate(lines) if line.lstrip().startswith("|")]
    if piped:
        for place in piped:
            cells = [cell.strip().replace("**", "") for cell in lines[place].strip().strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                yield place + 1, cells
        return
    first = next((line for line in lines if line.strip()), "")
    delimiter = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _columns(path: Path, at: int, header: Sequence[str]) -> tuple[dict[int, list[str]], list[_Column]]:
    """Which columns describe a row (one may hold several values), and which hold figures."""
    named: dict[int, list[str]] = {}
    figures: list[_Column] = []
    unknown: list[str] = []
    for place, name in enumerate(header):
        keys = (
            [_meaning(part) for part in re.split(r"[,/;]\s*", name)]
            if _meaning(name) is None
            else [_meaning(name)]
        )
        if all(key is not None and key not in SCORES for key in keys):
            named[place] = [key for key in keys if key]
        elif len(keys) == 1 and keys[0] in SCORES:
            figures.append(_Column(place, name, keys[0] or "", None, None, None, None))
        elif _plain(name) in NO_ATTACK[1:] or _plain(name).split()[0:1] in (["clean"], ["natural"]):
            figures.append(_Column(place, name, "accuracy", CLEAN, 0.0, None, None))
        elif ATTACK.search(name):
            radius, steps = EPS.search(name), STEPS.search(name)
            attack = _short(name)
            count = int(steps[1] or steps[2]) if steps else None
            figures.append(
                _Column(
                    place,
                    name,
                    "accuracy",
                    attack,
                    _radius(path, at, radius[1]) if radius else None,
                    count,
                    _norm_in(name),
                )
            )
        else:
            unknown.append(name)
    if not figures:
        known = ", ".join(COLUMNS)
        raise DataError(
            f"{path}:{at}: no column of accuracies among {', '.join(header)}; expected {known}, or columns named after attacks "
            "(clean, FGSM eps=0.05, …)"
        )
    twice = {
        key for keys in named.values() for key in keys if sum(key in other for other in named.values()) > 1
    }
    if twice:
        raise DataError(f"{path}:{at}: two columns give the {sorted(twice)[0]}")
    if unknown and not named:
        named[list(header).index(unknown[0])] = ["model"]
    return named, figures


def _row(
    path: Path,
    line: int,
    values: Mapping[str, str],
    column: _Column,
    cell: str,
    percent: bool,
    defaults: Mapping[str, object],
) -> Row | None:
    if cell in ("", "-", "–", "—"):
        return None
    accuracy, grain = _share(path, line, column, cell, percent)
    radius = _radius(path, line, values["eps"]) if values.get("eps") else None
    attack = column.attack
    if attack is None:
        told = values.get("attack")
        clean = told is not None and _plain(told) in NO_ATTACK and _plain(told) != ""
        if told is None or _plain(told) == "":
            clean = all(
                _plain(values.get(key, "")) in NO_ATTACK for key in ("eps", "steps", "step size")
            ) or (told == "" and radius == 0)
        attack = CLEAN if clean else _short(told or "") or "attack"
    eps = column.eps if column.eps is not None else radius
    if attack != CLEAN and eps is None:
        eps = _number(defaults["eps"])
        if eps is None:
            raise DataError(
                f"{path}:{line}: no radius for {column.name!r}; add a column eps, or give --eps for the whole table"
            )
    count = values.get("n", "").replace(",", "").replace("_", "")
    norm = (
        _norm_in(values.get("norm", ""))
        or column.norm
        or _norm_in(values.get("attack", ""))
        or defaults["norm"]
    )
    if norm == "linf" and (eps or 0) > 1:
        raise DataError(
            f"{path}:{line}: a radius of {eps:g} in linf: images lie in [0, 1]; is it {eps:g}/255?"
        )
    trained = values.get("trained", "")
    score = "" if column.score == "accuracy" else column.score
    model = values.get("model") or trained
    in_name = STEPS.search(values.get("attack", ""))
    steps = _whole(path, line, "steps", values["steps"]) if _told(values, "steps") else column.steps
    if steps is None and in_name:
        steps = int(in_name[1] or in_name[2])
    return Row(
        f"{model} {score}".strip(),
        attack,
        0.0 if attack == CLEAN else float(eps or 0.0),
        accuracy,
        _whole(path, line, "n", count) if count else _integer(defaults["n"]),
        norm,  # type: ignore[arg-type]
        None if attack == CLEAN else steps,
        _radius(path, line, values["step size"]) if _told(values, "step size") and attack != CLEAN else None,
        CLEAN if _trained_clean(trained) else _short(trained),
        line,
        grain,
        score,
    )


def _told(values: Mapping[str, str], key: str) -> bool:
    return _plain(values.get(key, "")) not in NO_ATTACK


def _split(path: Path, line: int, keys: Sequence[str], cell: str) -> dict[str, str]:
    """The values of a cell of one or several; a single word for several (none) is that of each."""
    parts = [part.strip() for part in cell.split(",")] if len(keys) > 1 else [cell]
    if len(parts) == 1 and len(keys) > 1 and _plain(cell) in NO_ATTACK:
        parts = [cell] * len(keys)
    if len(parts) != len(keys):
        raise DataError(
            f"{path}:{line}: {cell!r} has {len(parts)} values; its column holds {', '.join(keys)}"
        )
    return dict(zip(keys, parts))


def _percent(path: Path, body: Sequence[tuple[int, list[str]]], figures: Sequence[_Column]) -> bool:
    """Whether accuracies are percent: a column says so, or one lies above 1."""
    if any("%" in column.name or "percent" in column.name.lower() for column in figures):
        return True
    cells = [(line, column, cells[column.place]) for line, cells in body for column in figures]
    return any(
        "%" in cell or _figure(path, line, column, cell) > 1
        for line, column, cell in cells
        if cell not in ("", "-", "–", "—")
    )


def _share(path: Path, line: int, column: _Column, cell: str, percent: bool) -> tuple[float, float]:
    """An accuracy as a share of 1, and the unit of its last digit."""
    value = _figure(path, line, column, cell)
    decimals = re.search(r"\.(\d+)", cell)
    grain = 10.0 ** -len(decimals[1]) if decimals else 1.0
    scale = 100 if percent else 1
    if not 0 <= value <= scale:
        raise DataError(f"{path}:{line}: {column.name} is {cell}; expected 0 to {scale}")
    return value / scale, grain / scale if grain < scale else 0.0


def _figure(path: Path, line: int, column: _Column, cell: str) -> float:
    number = re.match(r"^\s*(\d*\.?\d+(?:e-?\d+)?)\s*%?\s*(?:(?:±|\+/-|\(|\[).*)?$", cell, re.IGNORECASE)
    if number is None:
        raise DataError(f"{path}:{line}: {column.name} is {cell!r}; expected an accuracy")
    return float(number[1])


def _radius(path: Path, line: int, cell: str) -> float | None:
    if _plain(cell) in NO_ATTACK:
        return None
    try:
        value = parse_radius(cell.replace(" ", ""))
        check_radius("l1", value)  # any size, but a number from 0 up
        return value
    except ConfigError as error:
        raise DataError(f"{path}:{line}: {error}") from None


def _whole(path: Path, line: int, what: str, cell: str) -> int:
    if not re.fullmatch(r"\d+(\.0+)?", cell) or float(cell) < 1:
        raise DataError(f"{path}:{line}: {what} is {cell!r}; expected a whole number from 1 up")
    return int(float(cell))


def _meaning(name: str) -> str | None:
    plain = _plain(name)
    return next((key for key, spellings in COLUMNS.items() if plain in spellings), None)


def _plain(text: str) -> str:
    """In small letters, without what stands in brackets, without signs of measure."""
    return re.sub(r"\s+", " ", re.sub(r"[\(\[].*?[\)\]]|%", "", text)).replace("_", " ").strip().lower()


def _short(text: str) -> str:
    """An attack's name without its radius and its number of steps, so that the same attack is
    called the same."""
    short = re.sub(
        r"\b(?:l-?_?inf|l∞|l2|l1)\b",
        "",
        STEPS.sub(lambda m: re.sub(r"[\s_^-]*\d+.*$", "", m[0]), EPS.sub("", text)),
        flags=re.I,
    )
    return (
        re.sub(r"[\s,;:@()=-]+$", "", re.sub(r"\s+", " ", re.sub(r"\(\s*\)", "", short))).strip(" -,").lower()
    )


def _trained_clean(text: str) -> bool:
    return bool(text) and (
        _plain(text) in NO_ATTACK or _plain(text).split()[0] in ("clean", "natural", "standard", "plain")
    )


def _norm_in(text: str) -> Norm | None:
    return next(
        (
            norm
            for word, norm in NORMS.items()
            if re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z0-9])", text.lower())
        ),
        None,
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None
