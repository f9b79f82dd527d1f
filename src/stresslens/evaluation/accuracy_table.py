"""Accuracies of models whose predictions nobody kept: tables with one a seed, logs, and JSON figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.config.recorded_study import SEED
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.spelling import closest, unknown_key
from stresslens.evaluation.prediction_columns import USUAL as OF_IMAGES
from stresslens.evaluation.prediction_columns import plain_name
from stresslens.evaluation.prediction_rows import rows_of
from stresslens.evaluation.true_labels import word_of

USUAL: Mapping[str, Sequence[str]] = {
    "accuracy": (
        *(
            "accuracy",
            "acc",
            "test_accuracy",
            "test_acc",
            "eval_accuracy",
            "predict_accuracy",
            "top1",
            "acc1",
        ),
        *("top1_acc", "accuracy_top1", "metrics/accuracy_top1", "mean_test_score"),
    ),
    "name": ("variant", "model", "method", "name", "run", "config", "experiment"),
    "seed": ("seed", "random_seed", "run_id", "fold", "repeat", "trial"),
    "images": ("images", "n", "n_images", "num_images", "n_test", "test_samples", "eval_samples", "support"),
}
"""The usual names of columns, without case; the first that is there is taken."""
ARRAYS = (".npz", ".npy", ".pt")
"""Files that hold no accuracies."""
ONE_RUN = ("epoch", "step")
"""Columns of a table that follows one training; its last accuracy counts."""


@dataclass(frozen=True)
class ReportedAccuracy:
    """The accuracies (seeds,) of a variant as shares, and the number of test images, if it is known."""

    accuracies: tuple[float, ...]
    images: int | None


def is_table_of_accuracies(path: Path, columns: Mapping[str, str]) -> bool:
    """Whether a file has accuracies and no labels or scores of images."""
    if not path.is_file():
        return False
    if "accuracy" in columns:
        return True
    if path.suffix.lower() in ARRAYS:
        return False
    try:
        found = _figures_of(path) or next(iter(rows_of(path))).columns
    except (DataError, StopIteration):
        return False
    plain = {plain_name(name) for name in found}
    of_images = {*OF_IMAGES["label"], *OF_IMAGES["prediction"], *OF_IMAGES["scores"]}
    return bool(plain & set(USUAL["accuracy"])) and not plain & of_images


def read_accuracies(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None
) -> dict[str, ReportedAccuracy]:
    """The accuracies in files, by variant: tables with a row for each seed or variant, the log of one
    training (its last row counts), or JSON with one figure (`eval_accuracy`). Without a column of names the
    name of the file is that of the variant and its seed. A file with values above 1
    has percentages. A seed that is there twice with the same accuracy counts once.

    `columns` gives columns with other names than the usual ones (`accuracy`, `name`, `seed`, `images`).
    Raises DataError for values that are no accuracies, and ConfigError for columns that are not there.
    """
    given = dict(columns or {})
    if wrong := sorted(set(given) - set(USUAL)):
        raise ConfigError(f"columns: {unknown_key(wrong[0], USUAL)}")
    own_names = len({path.stem for path in paths}) == len(paths)
    rows = [row for path in paths for row in _rows(path, given, path.stem if own_names else path.parent.name)]
    seen: dict[tuple[str, str], float] = {}
    found: dict[str, list[float]] = {}
    images: dict[str, set[int | None]] = {}
    for name, seed, accuracy, n in rows:
        if seed and (name, seed) in seen:
            if seen[name, seed] != accuracy:
                both = f"{seen[name, seed]:g} and {accuracy:g}"
                raise DataError(f"{name} has two accuracies of seed {seed}, {both}")
            continue
        seen[name, seed] = accuracy
        found.setdefault(name, []).append(accuracy)
        images.setdefault(name, set()).add(n)
    for name, several in images.items():
        if len(several) > 1:
            raise DataError(f"the seeds of {name} were tested on different numbers of images: {several}")
    return {name: ReportedAccuracy(tuple(each), images[name].pop()) for name, each in found.items()}


def _figures_of(path: Path) -> Mapping[str, Any]:
    """The figures of a JSON file, as columns of one row; empty for another file. Raises DataError."""
    if path.suffix.lower() != ".json":
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, Mapping) or any(isinstance(each, list) for each in values.values()):
        return {}
    return {name: [value] for name, value in values.items()}


def _columns_of(path: Path) -> Mapping[str, Any]:
    """The columns of a table, or one row of the figures in a JSON file."""
    if figures := _figures_of(path):
        return figures
    blocks = list(rows_of(path))
    return {name: [v for each in blocks for v in each.columns.get(name, ())] for name in blocks[0].columns}


def _rows(path: Path, given: Mapping[str, str], stem: str) -> list[tuple[str, str, float, int | None]]:
    """(variant, seed, accuracy, images) of each row of a file."""
    columns = _columns_of(path)
    roles = {role: _column(path, columns, role, given) for role in USUAL}
    accuracy = roles["accuracy"]
    if accuracy is None:
        raise DataError(
            f"{path} has no column of accuracies ({', '.join(USUAL['accuracy'][:5])}, …); it has "
            f"{', '.join(columns)}; name it (--columns accuracy=NAME)"
        )
    filled = [k for k, value in enumerate(columns[accuracy]) if word_of(value) not in ("", "nan")]
    plain = {plain_name(name) for name in columns}
    if roles["name"] is None and roles["seed"] is None and plain & set(ONE_RUN):
        filled = filled[-1:]
    if not filled:
        raise DataError(f"{path}: its column {accuracy!r} is empty")
    found = []
    for k in filled:
        name = word_of(columns[roles["name"]][k]) if roles["name"] else stem
        match = SEED.match(name)
        name, seed = (match[1], match[2]) if match and match[1] else (name, "")
        seed = word_of(columns[roles["seed"]][k]) if roles["seed"] else seed
        value = _number(path, k, accuracy, columns)
        if not 0 <= value <= 100:
            raise DataError(
                f"{path}: row {k + 1}: {value:g} is no accuracy; expected a share or a percentage"
            )
        n = int(_number(path, k, roles["images"], columns)) if roles["images"] else None
        if n is not None and n < 1:
            raise DataError(f"{path}: row {k + 1}: {n} images; expected one or more")
        found.append((name, seed, value, n))
    scale = 100 if max(value for _, _, value, _ in found) > 1 else 1
    return [(name, seed, value / scale, n) for name, seed, value, n in found]


def _column(path: Path, columns: Mapping[str, Any], role: str, given: Mapping[str, str]) -> str | None:
    if role in given and given[role] not in columns:
        raise ConfigError(f"{path} has no column {given[role]!r}; {closest(given[role], list(columns))}")
    plain = {plain_name(name): name for name in columns}
    return given.get(role) or next((plain[name] for name in USUAL[role] if name in plain), None)


def _number(path: Path, k: int, column: str, columns: Mapping[str, Any]) -> float:
    text = word_of(columns[column][k])
    try:
        value = float(text.removesuffix("%"))
        if not math.isfinite(value):
            raise ValueError
        return value
    except ValueError:
        raise DataError(f"{path}: row {k + 1}: {text!r} in the column {column!r} is no number") from None
