"""Reads tables of robust accuracies, as in papers: CSV, TSV or Markdown, in long or wide form."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stresslens.core.ball import Norm, check_radius, parse_radius
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.evidence import CLEAN, Row
from stresslens.robustness.attack_labels import AttackLabel, norm_in, read_label
from stresslens.robustness.table_lines import table_lines
from stresslens.robustness.table_numbers import NUMBER, decimal_mark, last_digit, whole_number, with_points

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
MEASURED = ("eps", "step size", "low", "high")
"""Columns whose numbers have decimals, like the accuracies."""
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
    eps: str | None
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
    lines, remarks = table_lines(path)
    (header_line, header), body = lines[0], lines[1:]
    wordy = [
        name
        for name, *cells in zip(header, *(cells for _, cells in body))
        if not any(NUMBER.fullmatch(cell) for cell in cells)
    ]
    described, columns, unread = _columns(path, header_line, header, wordy)
    rows = [
        (
            line,
            _described(path, line, described, cells),
            {column: cells[column.position] for column in columns},
        )
        for line, cells in body
    ]
    mark = decimal_mark(
        path,
        [
            *((header_line, column.eps) for column in columns if column.eps and "," in column.eps),
            *((line, values[key]) for line, values, _ in rows for key in MEASURED if key in values),
            *((line, cell) for line, _, scores in rows for cell in scores.values()),
        ],
    )
    percent = _percent(path, rows)
    table = Table([], [f"accuracies are read as {'percent' if percent else 'shares of 1'}"])
    if unread:
        table.notes.append(f"not read: the columns {', '.join(map(repr, unread))}")
    if (name := _with_bare_radius(columns, [values for _, values, _ in rows])) is not None:
        table.notes.append(f"radii without a sign are read from names such as {name!r}")
    if remarks:
        table.notes.append(f"not read: lines that begin with # ({remarks})")
    reader = _RowReader(path, mark, percent, _units_of_255(header, described), eps, n, norm)
    table.rows = [
        row
        for line, values, scores in rows
        for column, cell in scores.items()
        if (row := reader.row(line, values, column, cell)) is not None
    ]
    if not table.rows:
        raise DataError(
            f"{path}: no accuracies were found in the columns {', '.join(column.name for column in columns)}"
        )
    return table


def _with_bare_radius(columns: Sequence[_Column], rows: Sequence[Mapping[str, str]]) -> str | None:
    """The first name of an attack that has a radius without a sign, which is not in a column of its own."""
    without = [values for values in rows if not _given(values, "eps")]
    names = [*(column.name for column in columns), *(values.get("attack", "") for values in without)]
    return next((name for name in names if read_label(name).bare), None) if without else None


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
            scores.append(_Column(position, name, "accuracy", CLEAN, None))
        elif ATTACK.search(name) and name not in wordy:
            label = read_label(name)
            scores.append(_Column(position, name, "accuracy", label.name, label.eps, label))
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


@dataclass(frozen=True)
class _RowReader:
    """Makes rows of a table's cells. `mark` is its decimal mark, `in_255ths` are the columns of radii
    whose names say that they are given in 1/255; `eps`, `n` and `norm` are for rows without them."""

    path: Path
    mark: str | None
    percent: bool
    in_255ths: Collection[str]
    eps: float | None
    n: int | None
    norm: Norm | None

    def row(self, line: int, values: Mapping[str, str], column: _Column, cell: str) -> Row | None:
        """The row of one accuracy; None if its cell is empty."""
        if cell.lower() in MISSING:
            return None
        cell = with_points(cell, self.mark)
        accuracy, grain = self.share(line, column, cell)
        radius = self.radius(line, "eps", values)
        attack = _attack_of(values, column, radius)
        label = column.label or read_label(values.get("attack", ""))
        eps = self.radius(line, "label", {"label": label.eps or ""})
        eps = radius if eps is None or (label.bare and radius is not None) else eps
        if attack != CLEAN and eps is None and (eps := self.eps) is None:
            raise DataError(
                f"{self.path}:{line}: no radius for {column.name!r}; "
                "add a column eps, or give --eps for the whole table"
            )
        norm = norm_in(values.get("norm", "")) or label.norm or self.norm
        if norm == "linf" and (eps or 0) > 1:
            raise DataError(
                f"{self.path}:{line}: a radius of {eps:g} in linf: images lie in [0, 1]; is it {eps:g}/255?"
            )
        low, high = (with_points(values.get(end, ""), self.mark) for end in ("low", "high"))
        trained = values.get("trained", "")
        score = "" if column.score == "accuracy" else column.score
        under_attack = attack != CLEAN
        counts = {
            key: self.count(line, key, values, named)
            for key, named in (
                ("steps", label.steps),
                ("restarts", label.restarts),
                ("queries", label.queries),
            )
            if under_attack
        }
        return Row(
            f"{values.get('model') or trained} {score}".strip(),
            attack,
            float(eps or 0.0) if under_attack else 0.0,
            accuracy,
            self.count(line, "n", values, self.n),
            norm,
            step_size=self.radius(line, "step size", values) if under_attack else None,
            trained=CLEAN if _is_clean(trained) else read_label(trained).name,
            line=line,
            grain=grain,
            score=score,
            named_norm=label.norm if under_attack else None,
            written=f"{cell} ({low} to {high})" if column.attack is None and high else cell,
            broken=with_points(values.get("broken", ""), self.mark) if under_attack else "",
            **counts,
        )

    def share(self, line: int, column: _Column, cell: str) -> tuple[float, float]:
        """An accuracy from 0 to 1, and the unit of its last digit."""
        number = _accuracy(self.path, line, column, cell)
        scale = 100 if self.percent else 1
        if not 0 <= float(number) <= scale:
            raise DataError(f"{self.path}:{line}: {column.name} is {cell}; expected 0 to {scale}")
        grain = last_digit(number)
        return float(number) / scale, grain / scale if grain < scale else 0.0

    def radius(self, line: int, key: str, values: Mapping[str, str]) -> float | None:
        """A radius or a step size; None if the row does not give it."""
        if not _given(values, key):
            return None
        cell = with_points(values[key], self.mark).replace(" ", "")
        try:
            value = parse_radius(cell)
            check_radius("l1", value)  # in l1, every number from 0 up is allowed
        except ConfigError as error:
            raise DataError(f"{self.path}:{line}: {error}") from None
        return value / 255 if key in self.in_255ths and "/" not in cell else value

    def count(self, line: int, key: str, values: Mapping[str, str], otherwise: int | None) -> int | None:
        """A whole number from 1 up; `otherwise` if the row does not give it."""
        if not _given(values, key):
            return otherwise
        return whole_number(self.path, line, key, values[key], self.mark)


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


def _described(
    path: Path, line: int, described: Mapping[int, Sequence[str]], cells: Sequence[str]
) -> dict[str, str]:
    """What the cells of a row say of it, by the keys of `COLUMNS`."""
    values: dict[str, str] = {}
    for position, keys in described.items():
        for key, cell in _split(path, line, keys, cells[position]).items():
            values[key] = f"{values[key]} {cell}" if key == "model" and key in values else cell
    return values


def _split(path: Path, line: int, keys: Sequence[str], cell: str) -> dict[str, str]:
    """The value of each key in a cell. A single word such as none counts for all keys."""
    if len(keys) == 1:
        return {keys[0]: cell}
    parts = re.split(r"\s*;\s*|,\s+|\s+/\s+", cell)
    if len(parts) != len(keys):
        parts = [part.strip() for part in cell.split(",")]
    if len(parts) == 1 and _plain(cell) in NO_ATTACK:
        parts = [cell] * len(keys)
    if len(parts) != len(keys):
        raise DataError(
            f"{path}:{line}: {cell!r} has {len(parts)} values; its column holds {', '.join(keys)}"
        )
    return dict(zip(keys, parts))


def _percent(path: Path, rows: Sequence[tuple[int, object, Mapping[_Column, str]]]) -> bool:
    """Whether accuracies are in percent: a column says so, or one of them is above 1."""
    scores = [(line, column, cell) for line, _, cells in rows for column, cell in cells.items()]
    if any("%" in column.name or "percent" in column.name.lower() for _, column, _ in scores):
        return True
    return any(
        "%" in cell or float(_accuracy(path, line, column, cell)) > 1
        for line, column, cell in scores
        if cell.lower() not in MISSING
    )


def _accuracy(path: Path, line: int, column: _Column, cell: str) -> str:
    """The number in a cell, with a decimal point."""
    number = NUMBER.fullmatch(cell)
    if number is None:
        raise DataError(f"{path}:{line}: {column.name} is {cell!r}; expected an accuracy")
    return number["value"].replace(",", ".")


def _units_of_255(header: Sequence[str], described: Mapping[int, Sequence[str]]) -> set[str]:
    """The radii and step sizes whose column says that they are in 1/255, such as "eps (/255)"."""
    return {
        key
        for position, keys in described.items()
        for key in keys
        if key in ("eps", "step size") and re.search(r"/\s*255", header[position])
    }


def _meaning(name: str) -> str | None:
    plain = _plain(name)
    return next((key for key, spellings in COLUMNS.items() if plain in spellings), None)


def _plain(text: str) -> str:
    """The text in lower case, without brackets and what they hold, and without percent signs."""
    bare = re.sub(r"[\(\[].*?[\)\]]|(?:\bin\s+)?(?:%|\bpercent\b)", "", text, flags=re.IGNORECASE)
    return re.sub(r"[\s_]+", " ", bare).strip().lower()


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
