"""What the page's sections show, from a study that was read: tables, charts, lists, within a budget of bytes."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from stresslens.core.layers import LayerTable
from stresslens.core.types import Estimate
from stresslens.report.figures import INK, Interval, Point, Series, interval_chart, line_chart
from stresslens.report.reading import DataFacts, Example, PerClass, Recipe, Run, Study, is_proportion
from stresslens.report.wording import footnote, percent, points

MATRIX_CLASSES = 20
MATRIX_CELLS = 20_000
PAIRS = 20
CLASS_ROWS = 1_500
PICTURE_BYTES = 800_000
FRAME_BYTES = 300
CONFIG_BYTES = 300_000
CURVES = (
    ("Training loss", ("loss",)),
    ("Training split, loss after the epoch", ("train", "loss")),
    ("Validation loss", ("validation", "loss")),
    ("Test loss: shown, never used", ("test", "loss")),
    ("Training split, accuracy after the epoch", ("train", "accuracy")),
    ("Validation accuracy", ("validation", "accuracy")),
    ("Test accuracy: shown, never used", ("test", "accuracy")),
)


@dataclass(frozen=True)
class Score:
    """A column of the headline table."""

    name: str
    title: str
    is_percent: bool
    estimates: Sequence[Estimate | None]


def scores(study: Study) -> list[Score]:
    """The scores any finished run has, accuracy first, then the baseline beside it; one estimate for each of `headline`."""
    names = {name for run in study.runs if run.finished for name in run.record.scores.get(study.split, {})}
    order = [
        "accuracy",
        "majority_baseline",
        "balanced_accuracy",
        *sorted(n for n in names if n.startswith("top")),
        "cross_entropy",
    ]
    columns = []
    for name in [*(n for n in order if n in names), *sorted(names.difference(order))]:
        is_percent = is_proportion(name)
        estimates = [recipe.score(study.split, name) for recipe in headline(study)]
        columns.append(Score(name, _title(name) + (", %" if is_percent else ""), is_percent, estimates))
    return columns


def score_notes(columns: Sequence[Score]) -> list[str]:
    """A sentence for each kind of interval, naming the columns that have it."""
    together: dict[str, list[str]] = {}
    for column in columns:
        if note := footnote(column.estimates):
            together.setdefault(note, []).append(_title(column.name))
    return [f"Intervals of {', '.join(titles).lower()}: {note}." for note, titles in together.items()]


def headline(study: Study) -> list[Recipe]:
    """The recipes with a finished run; the others are in `unfinished`."""
    return [recipe for recipe in study.recipes if recipe.finished]


@dataclass(frozen=True)
class Unfinished:
    run: str
    seed: int
    status: str
    message: str
    epochs: int


def unfinished(study: Study) -> list[Unfinished]:
    """Every run that was begun or is listed, and did not finish."""
    rows = []
    for recipe in study.recipes:
        rows += [
            Unfinished(recipe.name, run.seed, run.record.status, _reason(run), len(run.metrics))
            for run in recipe.runs
            if not run.finished
        ]
        rows += [Unfinished(recipe.name, seed, "not started", "no record in its folder", 0) for seed in recipe.missing]
    return rows


def _reason(run: Run) -> str:
    if run.record.status == "running" and not run.record.message:
        return "still running when this page was written, or killed before it could say so"
    return run.record.message or "no reason was recorded"


def verdicts(study: Study) -> list[str]:
    """The comparison's sentences; without them, what each of a few runs scores, and that no comparison was made."""
    if study.comparison and study.comparison.verdicts:
        return study.comparison.verdicts
    said = []
    recipes = headline(study)
    for recipe in recipes[:4]:
        estimate, baseline = (recipe.score(study.split, name) for name in ("accuracy", "majority_baseline"))
        if estimate:
            instead = f", against {100 * baseline.value:.1f} for always naming the commonest class" if baseline else ""
            said.append(f"{recipe.name}: {percent(estimate)} % of the {study.split} split is classified correctly{instead}.")
    if len(recipes) > 1:
        said.append("No comparison has been made between these runs: overlapping intervals do not say whether they differ.")
    if not recipes:
        said.append("No run has finished yet.")
    return said


def accuracy_chart(study: Study) -> Markup | None:
    """Accuracy of every recipe with its interval, against the majority-class baseline."""
    rows = []
    metric = study.comparison.metric if study.comparison else "accuracy"
    for recipe in headline(study):
        estimate = recipe.score(study.split, metric)
        if estimate and math.isfinite(estimate.value):
            row = _interval(recipe.name, estimate, recipe.place, f"{100 * estimate.value:.1f}")
            seen = recipe.score("train", metric) if study.split != "train" else None
            rows.append(replace(row, beside=100 * seen.value) if seen else row)
    if not rows:
        return None
    baselines = (
        [b.value for r in headline(study) if (b := r.score(study.split, "majority_baseline"))] if metric == "accuracy" else []
    )
    reference = (100 * baselines[0], f"majority class {100 * baselines[0]:.1f}") if baselines else None
    title = f"{_title(metric)} on the {study.split} split, with its interval"
    key = " (open circle: on the training split)" if any(math.isfinite(row.beside) for row in rows) else ""
    return interval_chart(rows, title=title, x_label=f"{metric}, %{key}", reference=reference)


def contrasts_chart(study: Study) -> Markup | None:
    contrasts = study.comparison.contrasts if study.comparison else []
    if not 1 < len(contrasts) <= 60:
        return None
    rows = [_interval(f"{c.b} − {c.a}", c.difference, INK, points(c.difference).split(" ")[0]) for c in contrasts]
    return interval_chart(
        rows, title="Differences, with their intervals", x_label="percentage points", reference=(0.0, "no difference")
    )


def _interval(name: str, e: Estimate, place: int, written: str) -> Interval:
    return Interval(name, 100 * e.value, 100 * e.low, 100 * e.high, place, written)


def curves(study: Study) -> list[Markup]:
    """One chart for each thing that was logged, all recipes overlaid."""
    charts = []
    for title, keys in CURVES:
        scale = 100.0 if keys[-1] == "accuracy" else 1.0
        drawn = [each for recipe in study.recipes if (each := _series(recipe, keys, scale))]
        if drawn:
            ys = [y for series in drawn for _, y in series.points]
            log = scale == 1 and min(ys) > 0 and max(ys) / min(ys) > 30
            unit = "%" if scale == 100 else "loss, logarithmic" if log else "loss"
            charts.append(line_chart(drawn, title=title, x_label="epoch", y_label=unit, log=log))
    return charts


def _series(recipe: Recipe, keys: tuple[str, ...], scale: float) -> Series | None:
    """A single seed's line; or the mean over seeds, as far as all finished ones go, in the band from lowest to highest."""
    lines: list[dict[float, float]] = []
    averaged: list[dict[float, float]] = []
    marks: list[Point] = []
    for run in recipe.runs:
        line = {x: scale * y for x, y in run.curve(*keys)}
        if not line:
            continue
        lines.append(line)
        if run.finished or not recipe.finished:
            averaged.append(line)
        chosen = run.record.training.chosen_epoch
        if run.finished and chosen is not None and chosen in line:
            marks.append((chosen, line[chosen]))
    if not lines:
        return None
    averaged = averaged or lines
    shared = sorted(set.intersection(*(set(line) for line in averaged)))
    mean = [(x, math.fsum(line[x] for line in averaged) / len(averaged)) for x in shared]
    band = []
    if len(lines) > 1:
        for x in sorted(set.union(*(set(line) for line in lines))):
            there = [line[x] for line in lines if x in line]
            band.append((x, min(there), max(there)))
    return Series(recipe.name, mean, recipe.place, band, marks)


@dataclass(frozen=True)
class Confusion:
    """A recipe's confusion matrix, summed over its finished seeds: as rows of (count, shade 0 to 9), or as its worst pairs."""

    recipe: str
    seeds: int
    classes: Sequence[str]
    images: int
    rows: Sequence[Sequence[tuple[int, int]]]
    pairs: Sequence[tuple[str, str, int, int]]


def confusions(study: Study) -> list[Confusion]:
    found = []
    cells = 0
    for recipe in headline(study):
        runs = [run for run in recipe.finished if study.split in run.record.confusion]
        runs = [run for run in runs if run.record.classes == runs[0].record.classes]
        if not runs:
            continue
        classes = runs[0].record.classes
        total = [[sum(row) for row in zip(*rows)] for rows in zip(*(run.record.confusion[study.split] for run in runs))]
        k = len(classes)
        cells += k * k
        rows: list[list[tuple[int, int]]] = []
        pairs: list[tuple[str, str, int, int]] = []
        if k <= MATRIX_CLASSES and cells <= MATRIX_CELLS:
            rows = [[(cell, math.ceil(9 * cell / max(1, sum(row)))) for cell in row] for row in total]
        else:
            wrong = [(total[i][j], i, j) for i in range(k) for j in range(k) if i != j and total[i][j]]
            worst = sorted(wrong, key=lambda each: (-each[0], each[1], each[2]))[:PAIRS]
            pairs = [(classes[i], classes[j], n, sum(total[i])) for n, i, j in worst]
        found.append(Confusion(recipe.name, len(runs), classes, sum(map(sum, total)), rows, pairs))
    return found


@dataclass(frozen=True)
class ClassTable:
    """Precision, recall, F1 and support of one seed's run; `left_out` counts the classes of higher F1 beyond the budget."""

    recipe: str
    seed: int
    rows: Sequence[tuple[str, Estimate, Estimate, Estimate, int]]
    left_out: int
    note: str


def class_tables(study: Study) -> list[ClassTable]:
    found = []
    shown = [(recipe, run) for recipe in headline(study) if (run := recipe.shown) and study.split in run.record.per_class]
    for recipe, run in shown:
        table: PerClass = run.record.per_class[study.split]
        rows = list(zip(run.record.classes, table.precision, table.recall, table.f1, table.support))
        limit = max(20, CLASS_ROWS // len(shown))
        left_out = max(0, len(rows) - limit)
        if left_out:
            rows = sorted(rows, key=lambda row: row[3].value if math.isfinite(row[3].value) else -1.0)[:limit]
        found.append(ClassTable(recipe.name, run.seed, rows, left_out, footnote([*table.precision, *table.recall, *table.f1])))
    return found


@dataclass(frozen=True)
class Picture:
    source: str
    truth: str
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Gallery:
    recipe: str
    seed: int
    small: bool
    samples: Sequence[Picture]
    mistakes: Sequence[Picture]
    left_out: int


def galleries(study: Study) -> list[Gallery]:
    """Pictures of one seed for each recipe, as data: URIs; the recipes share the budget evenly."""
    with_pictures = [(recipe, run) for recipe in study.recipes if (run := recipe.shown) and run.examples]
    found = []
    for recipe, run in with_pictures:
        left = PICTURE_BYTES // len(with_pictures)
        pictures: dict[bool, list[Picture]] = {False: [], True: []}
        left_out = 0
        for example in run.examples:
            source = _data_uri(run, example, left - FRAME_BYTES)
            if source is None:
                left_out += 1
                continue
            left -= len(source) + FRAME_BYTES
            right = example.truth == example.predicted
            names = (_class(run, example.truth), _class(run, example.predicted))
            pictures[example.kind == "mistake"].append(Picture(source, *names, example.probability, right))
        small = max((run.record.shape or (0, 0, 0))[1:]) < 88
        found.append(Gallery(recipe.name, run.seed, small, pictures[False], pictures[True], left_out))
    return found


def _class(run: Run, index: int) -> str:
    return run.record.classes[index] if 0 <= index < len(run.record.classes) else str(index)


def _data_uri(run: Run, example: Example, budget: int) -> str | None:
    """The picture, unless it is missing, is no PNG or WebP, lies outside the folder of examples or is beyond the budget."""
    path = run.folder.examples / example.file
    try:
        if path.resolve().parent != run.folder.examples.resolve() or path.stat().st_size * 4 / 3 > budget:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):
        return None
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "webp"
    else:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def layer_tables(study: Study) -> list[tuple[list[str], LayerTable]]:
    """Every different table once, with the names of the recipes that have it."""
    found: dict[LayerTable, list[str]] = {}
    for recipe in study.recipes:
        table = next((run.record.layers for run in [*recipe.finished, *recipe.runs] if run.record.layers), None)
        if table:
            found.setdefault(table, []).append(recipe.name)
    return [(names, table) for table, names in found.items()]


@dataclass(frozen=True)
class DataCard:
    recipes: Sequence[str]
    facts: DataFacts
    shape: tuple[int, int, int] | None
    classes: Sequence[str]


def data_cards(study: Study) -> list[DataCard]:
    """Every different data set once, with the names of the recipes that were trained on it."""
    found: dict[tuple[str, str], tuple[list[str], Run]] = {}
    for recipe in study.recipes:
        for run in recipe.runs:
            data = run.record.data
            if data.name:
                names, _ = found.setdefault((data.fingerprint, data.name), ([], run))
                if recipe.name not in names:
                    names.append(recipe.name)
    return [DataCard(names, run.record.data, run.record.shape, run.record.classes) for names, run in found.values()]


def environment(study: Study) -> list[tuple[str, str]]:
    """Every key with its value; where runs differ, the different values and no more than four of them."""
    values: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for key, value in run.environment.items():
            values.setdefault(key, {})[value] = None
    rows = []
    for key, different in values.items():
        more = f" · and {len(different) - 4} more" if len(different) > 4 else ""
        rows.append((key, " · ".join(list(different)[:4]) + more))
    return rows


def configs(study: Study) -> list[tuple[str, str, str]]:
    """(recipe, path from the study's folder, text) of the seed that is shown."""
    found = []
    room = CONFIG_BYTES // max(1, len(study.recipes))
    for recipe in study.recipes:
        run = recipe.shown
        if run and run.config:
            cut = run.config if len(run.config) <= room else run.config[:room] + "\n… (cut here; the whole is in the file)"
            found.append((recipe.name, str(run.folder.config.relative_to(study.folder)), cut))
    return found


def _title(name: str) -> str:
    known = {"cross_entropy": "Cross-entropy", "majority_baseline": "Majority-class baseline"}
    if name.startswith("top") and name[3:].isdecimal():
        return f"Top-{name[3:]}"
    return known.get(name, name.replace("_", " ").capitalize())
