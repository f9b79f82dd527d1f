"""The model card of a run as Markdown, with the front matter of the Hugging Face hub (Mitchell et al.
2019, Model Cards for Model Reporting): what was measured, on how many images, and what was not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stresslens.comparison.markdown import in_markdown
from stresslens.config import registry
from stresslens.config.yaml_source import parse_value, yaml_text
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.format import number, p_value, percent, percent_sign, plain, plugin_text, radius
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import counted, enumeration
from stresslens.core.types import Finding
from stresslens.evaluation.dataset_card import published_facts
from stresslens.report.attack_audits import audit_findings
from stresslens.report.load import Run, read_run, split_of
from stresslens.report.provenance import data_cards
from stresslens.report.summary import chosen_epoch, run_opening, run_scores
from stresslens.report.threats import title_of
from stresslens.robustness.robust_curves import worst_case

METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "macro_precision": "precision",
    "auroc": "roc_auc",
    "brier": "brier_score",
}
"""Scores with the names that the hub gives them."""
CLASSES, ROWS = 10, 20
"""Most classes, and rows of a table, that are shown."""


def render_model_card(folder: RunFolder) -> str:
    """The card of a run, from its files alone. Raises ConfigError for a run that is not finished."""
    run = read_run(folder)
    split = split_of([run])
    if not run.finished or split not in run.record.scores:
        why = f"has no scores ({run.record.status}), and a card tells what was measured"
        raise ConfigError(f"{folder.path} {why}")
    config = parse_value(run.config) if run.config else {}
    values = config if isinstance(config, Mapping) else {}
    title = f"{run.record.study}/{run.name}" if run.record.study else run.name
    lines = ["---", yaml_text(_front_matter(run, split, title, values)).strip(), "---", ""]
    lines += [f"# {in_markdown(title)}", "", *_opening(run, split, values)]
    lines += _section("Data", _data(run, values))
    lines += _section(f"Scores on {split}", _scores(run, split))
    lines += _section("By class", _classes(run, split))
    lines += _section("By group of images", _slices(run, split))
    lines += _section("Calibration", _calibration(run))
    lines += _section("Robustness", _robustness(run))
    lines += _section("Audits of the attacks", _audits(audit_findings(run), "the attacks"))
    lines += _section("Training", _training(run, values))
    lines += _section("Limits", _limits(run, split))
    lines += _section("Use", _use(run))
    return "\n".join([*lines, ""])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _front_matter(run: Run, split: str, title: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a card on the hub: what it does, the data, and scores as a model index."""
    data = run.record.data.name
    scores = run.record.scores[split]
    metrics = [
        {"type": METRICS[name], "name": f"{name} ({percent_sign(e)}, n = {e.n})", "value": round(e.value, 6)}
        for name, e in scores.items()
        if name in METRICS and math.isfinite(e.value)
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": _dataset_type(values) or data, "split": split},
        "metrics": metrics,
    }
    named = {"datasets": [_dataset_type(values)]} if _dataset_type(values) else {}
    is_network = bool(run.record.layers)
    return {
        "library_name": "stresslens",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "stresslens", *(["pytorch"] if is_network else [])],
        **named,
        "metrics": list(dict.fromkeys(metric["type"] for metric in metrics)),
        "model-index": [{"name": title, "results": [result]}],
    }


def _dataset_type(values: Mapping[str, Any]) -> str:
    """The name of the data set on the hub, or of its plug-in; empty for predictions of another program."""
    data = values.get("data")
    if data is None:
        return ""
    name, options = registry.name_and_options("datasets", data)
    return str(options.get("name", name)) if name == "huggingface" else name


def _opening(run: Run, split: str, values: Mapping[str, Any]) -> list[str]:
    record = run.record
    classes = enumeration([in_markdown(name) for name in run.classes], CLASSES)
    what = f"An image classifier of {counted(len(run.classes), 'class', 'classes')}: {classes}."
    if record.shape is not None:
        what += f" It takes images of {' × '.join(map(str, record.shape))} (channels, height, width)."
    if record.source:
        what += f" Only its predictions are known, from {in_markdown(record.source)}."
    model = values.get("estimator") or values.get("model")
    if model is not None and not record.source:
        kind = "estimators" if values.get("estimator") else "models"
        what += f" Architecture: {in_markdown(plugin_text(*registry.name_and_options(kind, model)))}."
    return [what, "", " ".join(map(in_markdown, run_opening(run, split)))]


def _data(run: Run, values: Mapping[str, Any]) -> list[str]:
    data = run.record.data
    if not data.name:
        return []
    sizes = ", ".join(f"{n:,} {split}" for split, n in data.sizes.items())
    lines = [f"{in_markdown(data.name)}: {sizes} images (fingerprint `{data.fingerprint}`)."]
    facts = _facts(values)
    if facts is not None:
        lines += [
            "",
            f"- Published as {in_markdown(f'{facts.title} ({facts.source})')}",
            f"- Licence: {in_markdown(facts.licence)}",
            f"- Known copies: {in_markdown(facts.duplicates)}",
            f"- Known wrong labels: {in_markdown(facts.label_noise)}",
        ]
    lines += [f"- {in_markdown(note)}" for note in data.on_files()]
    lines += ["", *_audits(data.findings, "the data")] if data.findings else []
    (card,) = data_cards([run])
    return lines + [f"- {in_markdown(text)}" for text in card.without_copies]


def _facts(values: Mapping[str, Any]) -> PublishedFacts | None:
    try:
        return published_facts(values["data"]) if "data" in values else None
    except StresslensError:  # a plug-in that is not here
        return None


def _audits(findings: Sequence[Finding], what: str) -> list[str]:
    """The signs with what to do, and how many checks found none or were not made."""
    if not findings:
        return []
    signs = [each for each in findings if each.status == "sign"]
    clean = sum(each.status == "no sign" for each in findings)
    unchecked = [each.audit for each in findings if each.status == "not checked"]
    lines = [
        f"- **{each.severity}: {in_markdown(each.audit)}**: {in_markdown(each.evidence)}"
        + (f" ({in_markdown(each.remedy)})" if each.remedy else "")
        for each in signs
    ]
    lines.append(f"- {counted(clean, 'check')} of {what} found no sign; the report says how each one looked")
    if unchecked:
        lines.append(f"- not checked: {in_markdown(enumeration(unchecked, CLASSES))}")
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cut = [f"{len(rows) - ROWS} more rows are in the report."] if len(rows) > ROWS else []
    lines = [heads, ["---"] * len(heads), *([in_markdown(cell) for cell in row] for row in rows[:ROWS])]
    return [*(f"| {' | '.join(line)} |" for line in lines), *(["", *cut] if cut else [])]


def _scores(run: Run, split: str) -> list[str]:
    splits, scores = run_scores(run)
    column = splits.index(split)
    rows = [
        (each.title, percent_sign(e) if each.is_percent else plain(e), f"{e.n:,}", e.method)
        for each in scores
        if (e := each.estimates[column]) is not None
    ]
    return _table(["score", "value (95 % interval)", "n", "interval"], rows)


def _classes(run: Run, split: str) -> list[str]:
    """The classes with the lowest recall first."""
    table = run.record.per_class.get(split)
    if table is None:
        return []
    rows = [
        (name, f"{n:,}", percent(recall), percent(precision))
        for name, n, recall, precision in zip(run.classes, table.support, table.recall, table.precision)
    ]
    order = sorted(range(len(rows)), key=lambda k: (math.isnan(table.recall[k].value), table.recall[k].value))
    return _table(["class", "images", "recall, %", "precision, %"], [rows[k] for k in order])


def _slices(run: Run, split: str) -> list[str]:
    lines = []
    for found in run.record.slices.get(split, []):
        p = (
            f" (alike: p = {p_value(found.p_holm)} after Holm's correction)"
            if found.p_holm is not None
            else ""
        )
        rows = [(row.value, f"{row.n:,}", percent(row.accuracy)) for row in found.rows]
        lines += ["", f"{in_markdown(found.by)}{p}:", ""]
        lines += _table(["group", "images", "accuracy, % (95 % interval)"], rows)
    return lines[1:]


def _calibration(run: Run) -> list[str]:
    found = run.record.calibration
    if found is None and run.record.source:
        return ["The probabilities are those of the file; nothing was fitted to calibrate them."]
    if found is None:
        return ["The probabilities are not calibrated: there were no validation images to do it on."]
    if found.why_not:
        return [f"The probabilities are as the model gives them: {found.why_not}."]
    over = f" on {found.n:,} images" if found.n else ""
    return [f"Logits are divided by {number(found.temperature)}, fitted{over} of {found.fitted_on}."]


def _robustness(run: Run) -> list[str]:
    lines: list[str] = []
    for robust in run.stress.robust:
        result = robust.result
        rows = [(radius(eps), percent(e), f"{e.n:,}") for eps, e in worst_case(result)]
        lines += ["", f"{in_markdown(title_of(robust))}, {result.n:,} images of {result.split}:", ""]
        lines += _table(["radius", "robust accuracy, % (95 % interval)", "n"], rows)
    for certificate in run.stress.certificates:
        found = certificate.result
        name = plugin_text(found.certificate, found.options)
        lines += ["", f"Certificate {in_markdown(name)}, {found.norm}, {found.n:,} images:", ""]
        certified = [(radius(each.radius), percent(each.certified)) for each in found.curve]
        lines += _table(["radius", "certified accuracy, %"], certified)
    if (corrupted := run.stress.corruptions) is not None:
        names = enumeration([each.name for each in corrupted.corruptions], CLASSES)
        clean = f", {percent_sign(corrupted.clean)} without" if corrupted.clean else ""
        mean = percent_sign(corrupted.mean)
        lines += ["", f"Under corruptions ({names}; {corrupted.n:,} images): {mean} on average{clean}."]
    return lines[1:]


def _training(run: Run, values: Mapping[str, Any]) -> list[str]:
    training, environment = run.record.training, run.environment
    if run.record.source:
        return [f"Nothing is known of the training of {in_markdown(run.record.source)}."]
    lines = []
    if training.epochs == 0:
        lines.append("It was not trained here: it is used as it came.")
    elif training.epochs is not None:
        lines.append(f"{counted(training.epochs, 'epoch')}. {chosen_epoch(training)}".strip())
    if (weights := run.record.weights) is not None and weights.said:
        lines.append(f"{in_markdown(weights.said)}.")
    torch = environment.get("packages.torch", "")
    versions = f"stresslens {run.record.version}{f', torch {torch}' if torch else ''}"
    lines.append(f"Seed {run.seed}, {versions}. The settings, which `stresslens run config.yaml` repeats:")
    return [" ".join(lines), "", "```yaml", yaml_text(dict(values)).strip().replace("```", "` ` `"), "```"]


def _limits(run: Run, split: str) -> list[str]:
    """What the figures do not say: what was not looked at, and how often the test split was read."""
    record = run.record
    n = next((e.n for e in record.scores[split].values()), 0)
    lines = [
        f"- Intervals are over {n:,} images of {split} that were drawn like the others; other cameras, "
        "places or times were not measured.",
        "- One seed: another training of the same recipe gives another figure.",
        f"- Test was read {counted(record.reads_of_test, 'time')}."
        if split == "test"
        else "- Scores are those of validation images, which may have chosen the model.",
    ]
    if record.watched_test:
        lines.append("- The test split was watched during training; it chose nothing.")
    if not run.stress.robust:
        lines.append("- Not attacked: nothing is known of images that somebody changes on purpose.")
    elif not any(robust.result.audited for robust in run.stress.robust):
        lines.append("- The attacks were not audited, so their robust accuracy may be too high.")
    if run.stress.corruptions is None:
        lines.append("- Not tried under corruptions such as blur and noise.")
    likeness = record.likeness
    if likeness is not None and likeness.rate is not None:
        rate = f"a false-alarm rate of {100 * likeness.rate:g} % ({likeness.n:,} validation images)"
        lines.append(
            f"- Images unlike the training images are marked at {rate}; how many are found depends on them."
        )
    else:
        lines.append("- Images unlike the training images are not marked.")
    lines += [f"- {in_markdown(note.message)}" for note in record.findings]
    lines += [f"- {name} failed: {in_markdown(each.message)}" for name, each in record.failures.items()]
    if not record.data.findings:
        lines.append("- The data were not checked for copies, bad pictures or shortcuts.")
    return lines


def _use(run: Run) -> list[str]:
    if run.record.source:
        return []
    code = ["import stresslens as sl", "run = sl.open('FOLDER-OF-THIS-RUN')", "sl.predict(run, images)"]
    shell = ["```", "stresslens predict FOLDER-OF-THIS-RUN pictures/", "```"]
    return [*shell, "", "or in Python:", "", "```python", *code, "```"]
