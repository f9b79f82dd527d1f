"""Reads tables of robust accuracies, as in papers: CSV, TSV or Markdown, in long or wide form."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stresslens.core.ball import Norm, check_radius, parse_radius
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.evidence import CLEAN, Row
from stresslens.robustness.attack_labels import AttackLabel, norm_in, read_label

COLUMNS: dict[str, tuple[str, ...]] = {
    "model": ("model", "network", "net", "architecture", "run", "defense", "defence", "method"),
    "trained": ("trained", "trained on", "training", "hardened on"),
    "attack": ("attack", "attacked by", "under"),
    "eps": ("eps", "epsilon", "ε", "ϵ", "radius"),
    "n": ("n", "images", "samples", "test images"),
    "norm": ("norm", "threat model"),
    "steps": ("steps", "iterations", "iters", "k"),
    "restarts": ("restarts", "random restarts"),
    "queries": ("queries", "query budget"),
    "step size": ("step size", "alpha", "α", "step", "stepsize"),
    "low": ("low", "lower", "ci low", "ci lower", "lower end"),
    "high": ("high", "upper", "ci high", "ci upper", "upper end"),
    "broken": ("broken", "fooled", "success rate", "attack success rate", "asr", "fooling rate"),
    "accuracy": ("accuracy", "acc", "robust accuracy", "robust acc", "adversarial accuracy", "test accuracy"),
    "top-1": ("top-1", "top1", "top 1"),
    "top-5": ("top-5", "top5", "top 5"),
}
"""The accepted names of each column, in any case. Text in brackets ("accuracy (%)") is ignored."""
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
ATTACK = re.compile(
    r"fgsm|fgm|pgd|bim|apgd|auto|square|fab|deepfool|carlini|c&w|\bcw\b|noise|attack|\baa\b|adversarial"
    r"|certif|verif|provabl|\bibp\b|crown|smoothing|worst|union|ensemble|transfer|black.?box",
    re.IGNORECASE,
)
MISSING = ("", "-", "–", "—", "n/a", "na", "?")
"""Cells without an accuracy."""
NUMBER = re.compile(r"^\s*(\d*\.?\d+(?:e-?\d+)?)\s*%?\s*(?:(?:±|\+/-|\(|\[).*)?$", re.IGNORECASE)


@dataclass
class Table:
    """The rows that were read, and notes on what the reader had to assume, in words."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Column:
    """A column of accuracies, and the attack that its name describes; None for what it does not
    say."""

    position: int
    name: str
    score: str
    attack: str | None
    eps: float | None
    label: AttackLabel | None = None


def read_table(
    path: Path, *, eps: float | None = None, n: int | None = None, norm: Norm | None = None
) -> Table:
    """Reads the rows of a .csv, .tsv or .md file, or of any text file with such a table.

    `eps`, `n` and `norm` are used for rows that do not give them. Long form: one row for each
    model, attack and radius, with the column names of `COLUMNS`. Wide form: one row for each model
    and one column for each attack, named like "PGD-40 ε=.05". A table may mix both. A column
    "steps, ε, α" holds cells like "20, 0.1, 0.01". Clean rows say none or clean, or have radius 0
    and no attack. Raises DataError with file and line.
    """
    lines = list(_lines(path))
    if len(lines) < 2:
        raise DataError(f"{path}: expected a line of column names and a line for each model or attack")
    (header_line, header), body = lines[0], lines[1:]
    for line, cells in body:
        if len(cells) != len(header):
            raise DataError(
                f"{path}:{line}: {len(cells)} cells; the {len(header)} columns are {', '.join(header)}"
            )
    wordy = [
        name
        for name, *cells in zip(header, *(cells for _, cells in body))
        if not any(NUMBER.match(cell) for cell in cells)
    ]
    described, scores, unread = _columns(path, header_line, header, wordy)
    percent = _percent(path, body, scores)
    table = Table([], [f"accuracies are read as {'percent' if percent else 'shares of 1'}"])
    if unread:
        table.notes.append(f"not read: the columns {', '.join(map(repr, unread))}")
    defaults = {"eps": eps, "n": n, "norm": norm}
    for line, cells in body:
        values: dict[str, str] = {}
        for position, keys in described.items():
            for key, cell in _split(path, line, keys, cells[position]).items():
                values[key] = f"{values[key]} {cell}" if key == "model" and key in values else cell
        table.rows += [
            row
            for column in scores
            if (row := _row(path, line, values, column, cells[column.position], percent, defaults))
            is not None
        ]
    if not table.rows:
        raise DataError(
            f"{path}: no accuracies were found in the columns {', '.join(column.name for column in scores)}"
        )
    return table


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells: first the line of the column names, then the rows below it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from None
    lines = text.splitlines()
    markdown = [(number, line) for number, line in enumerate(lines, 1) if line.lstrip().startswith("|")]
    if markdown:
        for number, line in markdown:
            cells = [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                yield number, cells
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


def _columns(
    path: Path, line: int, header: Sequence[str], wordy: Sequence[str]
) -> tuple[dict[int, list[str]], list[_Column], list[str]]:
    """The positions of the columns that describe a row, with their keys (a column may hold several
    values), the columns of accuracies, and the names of the others.

    `wordy` are the columns without a single number: one of them that is named after an attack holds
    remarks.
    """
    described: dict[int, list[str]] = {}
    scores: list[_Column] = []
    unknown: list[str] = []
    for position, name in enumerate(header):
        keys = (
            [_meaning(part) for part in re.split(r"[,/;]\s*", name)]
            if _meaning(name) is None
            else [_meaning(name)]
        )
        if all(key is not None and key not in SCORES for key in keys):
            described[position] = [key for key in keys if key]
        elif len(keys) == 1 and keys[0] in SCORES:
            scores.append(_Column(position, name, keys[0] or "", None, None))
        elif _plain(name) and _is_clean(name):
            scores.append(_Column(position, name, "accuracy", CLEAN, 0.0))
        elif ATTACK.search(name) and name not in wordy:
            label = read_label(name)
            eps = _radius(path, line, label.eps) if label.eps else None
            scores.append(_Column(position, name, "accuracy", label.name, eps, label))
        else:
            unknown.append(name)
    if any(column.attack == CLEAN for column in scores):  # beside it, "robust accuracy" is under an attack
        scores = [
            replace(column, attack="attack")
            if column.attack is None and re.search("robust|adversarial", column.name, re.IGNORECASE)
            else column
            for column in scores
        ]
    if not scores:
        known = ", ".join(COLUMNS)
        raise DataError(
            f"{path}:{line}: no column of accuracies among {', '.join(header)}; "
            f"expected {known}, or columns named after attacks (clean, FGSM eps=0.05, …)"
        )
    twice = {
        key
        for keys in described.values()
        for key in keys
        if key != "model" and sum(key in other for other in described.values()) > 1
    }
    if twice:
        raise DataError(f"{path}:{line}: two columns give the {sorted(twice)[0]}")
    if unknown and not any("model" in keys or "trained" in keys for keys in described.values()):
        described[list(header).index(unknown[0])] = ["model"]
        unknown = unknown[1:]
    return described, scores, unknown


def _row(
    path: Path,
    line: int,
    values: Mapping[str, str],
    column: _Column,
    cell: str,
    percent: bool,
    defaults: Mapping[str, object],
) -> Row | None:
    """The row of one accuracy; None if its cell is empty."""
    if cell.lower() in MISSING:
        return None
    accuracy, grain = _share(path, line, column, cell, percent)
    radius = _radius(path, line, values["eps"]) if values.get("eps") else None
    attack = _attack_of(values, column, radius)
    eps = column.eps if column.eps is not None else radius
    if attack != CLEAN and eps is None:
        eps = _number(defaults["eps"])
        if eps is None:
            raise DataError(
                f"{path}:{line}: no radius for {column.name!r}; "
                "add a column eps, or give --eps for the whole table"
            )
    count = values.get("n", "").replace(",", "").replace("_", "")
    label = column.label or read_label(values.get("attack", ""))
    norm = norm_in(values.get("norm", "")) or label.norm or defaults["norm"]
    if norm == "linf" and (eps or 0) > 1:
        raise DataError(
            f"{path}:{line}: a radius of {eps:g} in linf: images lie in [0, 1]; is it {eps:g}/255?"
        )
    interval = column.attack is None and values.get("high")
    trained = values.get("trained", "")
    score = "" if column.score == "accuracy" else column.score
    model = values.get("model") or trained
    counts = {
        key: _whole(path, line, key, values[key].replace(",", "")) if _given(values, key) else named
        for key, named in (("steps", label.steps), ("restarts", label.restarts), ("queries", label.queries))
        if attack != CLEAN
    }
    return Row(
        f"{model} {score}".strip(),
        attack,
        0.0 if attack == CLEAN else float(eps or 0.0),
        accuracy,
        _whole(path, line, "n", count) if count else _integer(defaults["n"]),
        norm,  # type: ignore[arg-type]
        step_size=(
            _radius(path, line, values["step size"])
            if _given(values, "step size") and attack != CLEAN
            else None
        ),
        trained=CLEAN if _is_clean(trained) else read_label(trained).name,
        line=line,
        grain=grain,
        score=score,
        named_norm=None if attack == CLEAN else label.norm,
        written=f"{cell} ({values.get('low')} to {values['high']})" if interval else cell,
        broken="" if attack == CLEAN else values.get("broken", ""),
        **counts,
    )


def _attack_of(values: Mapping[str, str], column: _Column, radius: float | None) -> str:
    """The attack of an accuracy: the one in the column's name, else the one in the row, or
    `CLEAN`."""
    if column.attack is not None:
        return column.attack
    attack = values.get("attack")
    if attack is None or _plain(attack) == "":
        described = (_plain(values.get(key, "")) for key in ("eps", "steps", "step size"))
        clean = all(value in NO_ATTACK for value in described) or (attack == "" and radius == 0)
    else:
        clean = _plain(attack) in NO_ATTACK
    return CLEAN if clean else read_label(attack or "").name or "attack"


def _given(values: Mapping[str, str], key: str) -> bool:
    return _plain(values.get(key, "")) not in NO_ATTACK


def _split(path: Path, line: int, keys: Sequence[str], cell: str) -> dict[str, str]:
    """The value of each key in a cell. A single word such as none counts for all keys."""
    parts = [part.strip() for part in cell.split(",")] if len(keys) > 1 else [cell]
    if len(parts) == 1 and len(keys) > 1 and _plain(cell) in NO_ATTACK:
        parts = [cell] * len(keys)
    if len(parts) != len(keys):
        raise DataError(
            f"{path}:{line}: {cell!r} has {len(parts)} values; its column holds {', '.join(keys)}"
        )
    return dict(zip(keys, parts))


def _percent(path: Path, body: Sequence[tuple[int, list[str]]], scores: Sequence[_Column]) -> bool:
    """Whether accuracies are in percent: a column says so, or one of them is above 1."""
    if any("%" in column.name or "percent" in column.name.lower() for column in scores):
        return True
    cells = [(line, column, cells[column.position]) for line, cells in body for column in scores]
    return any(
        "%" in cell or _value(path, line, column, cell) > 1
        for line, column, cell in cells
        if cell.lower() not in MISSING
    )


def _share(path: Path, line: int, column: _Column, cell: str, percent: bool) -> tuple[float, float]:
    """An accuracy from 0 to 1, and the unit of its last digit."""
    value = _value(path, line, column, cell)
    decimals = re.search(r"\.(\d+)", cell)
    grain = 10.0 ** -len(decimals[1]) if decimals else 1.0
    scale = 100 if percent else 1
    if not 0 <= value <= scale:
        raise DataError(f"{path}:{line}: {column.name} is {cell}; expected 0 to {scale}")
    return value / scale, grain / scale if grain < scale else 0.0


def _value(path: Path, line: int, column: _Column, cell: str) -> float:
    number = NUMBER.match(cell)
    if number is None:
        raise DataError(f"{path}:{line}: {column.name} is {cell!r}; expected an accuracy")
    return float(number[1])


def _radius(path: Path, line: int, cell: str) -> float | None:
    if _plain(cell) in NO_ATTACK:
        return None
    try:
        value = parse_radius(cell.replace(" ", ""))
        check_radius("l1", value)  # in l1, every number from 0 up is allowed
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
    """The text in lower case, without brackets and what they hold, and without percent signs."""
    return re.sub(r"\s+", " ", re.sub(r"[\(\[].*?[\)\]]|%", "", text)).replace("_", " ").strip().lower()


def _is_clean(text: str) -> bool:
    """Whether a text such as "clean images" or "standard accuracy" says that there is no attack."""
    words = _plain(text).split() or [""]
    return bool(text) and (
        words == [""]
        or " ".join(words) in NO_ATTACK
        or (
            words[0] in ("clean", "natural", "standard", "plain", "benign")
            and words[-1] not in ("deviation", "error")
        )
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None
