"""HTML report: offline pages, one for a study and one for each of its runs, made from the runs'
files alone."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from stresslens.charts.chart import CHART_SHEETS
from stresslens.charts.curve_colours import COLOURS, DASHES
from stresslens.comparison.costs import written as written_cost
from stresslens.core import format
from stresslens.core.files import write_bytes
from stresslens.core.page_files import page_file, page_templates
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import duration
from stresslens.core.version import __version__
from stresslens.report import (
    ablation,
    accuracy_charts,
    attack_audits,
    averaged,
    certificates,
    comparison,
    convergence,
    corruptions,
    curves,
    data_size,
    ensembles,
    epochs,
    explanations,
    found_slices,
    ood,
    other_metrics,
    per_class,
    prediction_sets,
    provenance,
    ranking,
    robust_contrasts,
    run_robustness,
    settings,
    study_robustness,
    summary,
    sweeps,
    transferability,
    views,
)
from stresslens.report.contents import ROBUSTNESS_PARTS, RUN_ROBUSTNESS_PARTS, run_contents, study_contents
from stresslens.report.data_sets import by_data_set, data_set_results
from stresslens.report.footnotes import Footnotes
from stresslens.report.gallery import gallery
from stresslens.report.load import Run, StudyFolder, load_study, read_run, read_run_of, split_of

PAGE = "report.html"
TEMPLATES = (
    "base.html.j2",
    "parts.html.j2",
    "robustness.html.j2",
    "sweeps.html.j2",
    "metrics.html.j2",
    "ablation.html.j2",
    "prediction_sets.html.j2",
    "study.html.j2",
    "explanations.html.j2",
    "views.html.j2",
    "run.html.j2",
    "report.js",
    "downloads.js",
)


STRESS = (
    "robustness/*/result.json",
    "robustness/*/timings.json",
    "robustness/*/examples/*",
    "corruptions/result.json",
    "certificates/*/result.json",
    "explanations/*/result.json",
    "views/*/result.json",
    "slices/*/*",
)
"""Further files that a run's page is made from; a result's arrays are written before its
result.json."""


SHEETS = ("templates/report.css", "templates/downloads.css")
STYLES = (("core", "colours.css"), *CHART_SHEETS, *(("report", sheet) for sheet in SHEETS))
"""The style sheet of a page, as (package, file)."""
FILTERS = (
    "radius other_radius span percent plain points signed ratio number count memory brief with_asides "
    "p_value over percent_sign rate"
)
"""Functions of `format` that the templates use as filters."""


def write_report(folder: Path, *, anew: bool = True) -> Path:
    """Write `report.html` for a study and for each of its runs, or for a single run, and return the
    path of the first.

    Unless `anew`, a run's page is kept if the files that it was made from have not changed. Raises
    ConfigError if there is no run or the folder is not a study's.
    """
    if (folder / "record.json").is_file():
        home = folder.resolve().parent.parent
        if not (home / "study.json").is_file():
            return _write_run(read_run(RunFolder(folder)), None, anew=anew)
        return _write_run(read_run_of(home, RunFolder(folder)), home, anew=anew)
    study = load_study(folder)
    for run in study.runs:
        _write_run(run, folder, anew=anew)
    return _write(folder / PAGE, render_study(study))


def write_reports_of(run: Path) -> None:
    """Write the pages of a run and of its study, if they exist."""
    for folder in (run, run.resolve().parents[1]):
        if (folder / "record.json").is_file() or (folder / "study.json").is_file():
            write_report(folder)


def render_study(study: StudyFolder) -> str:
    """The study's page as text. Sections without data are left out."""
    parts = data_set_results(study, lambda run: link(study.folder, run.folder.path / PAGE))
    contrasts, contrasts_left_out = comparison.contrast_rows(study)
    costs, costs_left_out = comparison.cost_rows(study)
    watched = [run for run in study.runs if run.record.watched_test]
    questions = comparison.questions(study)
    sections = {**_study_sections(study), "parts": parts, "contrasts": contrasts, "costs": costs}
    return _render(
        "study.html.j2",
        title=study.name,
        contents=study_contents(sections),
        made_from="",
        study=study,
        has_robustness=any(sections[part] for part in ROBUSTNESS_PARTS),
        when=_when(study.runs),
        versions=sorted({run.record.version for run in study.runs} - {""}),
        opening=comparison.opening(study),
        questions=questions,
        told={verdict.sentence for question in questions for verdict in question.verdicts},
        watched=bool(watched),
        reads=sum(run.record.reads_of_test for run in watched),
        serious=[
            f
            for card in sections["data_cards"]
            for f in card.findings
            if (f.status, f.severity) == ("sign", "serious")
        ],
        contrast_columns=comparison.contrast_columns(contrasts),
        one_contrast=comparison.one_contrast(contrasts),
        cost_charted=any(part.cost_charts for part in parts),
        training_seconds=lambda run: run.record.training.seconds,
        contrasts_left_out=contrasts_left_out,
        contrasts_chart=comparison.contrasts_chart(study),
        costs_left_out=costs_left_out,
        accuracies=[run.record.scores.get(study.split, {}).get("accuracy") for run in study.runs],
        any_scoring=any(study.split in run.record.scoring for run in study.runs),
        any_memory=any(run.record.training.peak_memory is not None for run in study.runs),
        memory_heading=(
            "Peak memory"
            if all(run.record.training.memory_of == "tensors" for run in study.runs)
            else "Peak memory of the process"
        ),
        links=[link(study.folder, run.folder.path / PAGE) for run in study.runs],
        items=provenance.ITEMS,
        distinct=COLOURS * DASHES,
        few=curves.FEW,
        quality_checks=explanations.CHECKS,
        **sections,
    )


def _study_sections(study: StudyFolder) -> dict[str, Any]:
    """The content of each part of a study's page; empty or None if there is no data for it."""
    return {
        "unfinished": summary.unfinished(study),
        "missing_parts": summary.missing_parts(study),
        "command": summary.command(study),
        "seed_dependence": summary.seed_dependence(study),
        "unseen_seeds": summary.unseen_seeds(study),
        "expectation": provenance.expectation(study),
        "errors": comparison.errors(study),
        "matrix": comparison.matrix(study),
        "ablation": ablation.ablation_section(study),
        "other_metrics": other_metrics.metric_sections(study),
        "averaged": averaged.averaged_rows(study),
        "sweeps": sweeps.sweep_sections(study),
        "importance": sweeps.study_importance(study),
        "threats": [
            section
            for part in by_data_set(study)
            for section in study_robustness.robustness_sections(part, part.name if part != study else "")
        ],
        "audits": attack_audits.audits(study),
        "damaged": study_robustness.damaged(study),
        "robust_contrasts": robust_contrasts.robust_contrast_section(study),
        "transfers": transferability.transfer_tables(study),
        "corruptions": corruptions.corruption_section(study),
        "certificates": certificates.certificate_sections(study),
        "explained": explanations.study_explanations(study),
        "sizes": data_size.data_size_section(study),
        "convergence": convergence.convergence_section(study),
        "data_cards": provenance.data_cards(study.runs),
        "environment": provenance.environment_rows(study.runs),
        "settings": settings.settings_table(study),
    }


def render_run(run: Run, home: Path | None = None, made_from: str = "") -> str:
    """A run's page as text, with a link to the page of the study in `home`."""
    split = split_of([run])
    record = run.record
    splits, scores = summary.run_scores(run)
    counts = record.confusion.get(split, [])
    reliability = record.reliability.get(split)
    sections = {"scores": scores, **_run_sections(run, split)}
    return _render(
        "run.html.j2",
        title=run.title,
        contents=run_contents(sections, record),
        made_from=made_from,
        run=run,
        has_robustness=any(sections[part] for part in RUN_ROBUSTNESS_PARTS),
        training=record.training,
        home=link(run.folder.path, home / PAGE) if home else None,
        when=_when([run]),
        reason=summary.reason(run),
        chosen_epoch=summary.chosen_epoch(record.training),
        opening=summary.run_opening(run, split),
        split=split,
        splits=splits,
        temperature_note=summary.temperature_note(record.calibration),
        errors=sum(map(sum, counts)) - sum(row[i] for i, row in enumerate(counts)),
        reduced=max((record.shape or (0, 0, 0))[1:]) > 96,
        bins=[b for b in reliability.bins if b.n] if reliability else [],
        items=provenance.ITEMS,
        few=curves.FEW,
        quality_checks=explanations.CHECKS,
        config=provenance.config(run),
        **sections,
    )


def _run_sections(run: Run, split: str) -> dict[str, Any]:
    """The content of each part of a run's page; empty or None if there is no data for it."""
    images = gallery(run) if split == "test" else None
    return {
        "averaged": averaged.run_averaged_rows(run),
        "ensemble": ensembles.ensemble_section(run, split),
        "curves": curves.run_curves(run),
        "epochs": epochs.run_epochs(run),
        "accuracy_chart": accuracy_charts.run_accuracy_chart(run),
        "surest_mistakes": images.surest if images else None,
        "confusion": per_class.run_confusion(run, split, images.pairs if images else ()),
        "gallery": images,
        "attacked": run_robustness.run_robustness_sections(run),
        "explained": explanations.run_explanations(run),
        "views": views.run_views(run),
        "audits": attack_audits.audit_findings(run),
        "damaged": run.stress.damaged,
        "corruptions": corruptions.run_corruption_section(run),
        "certificates": certificates.run_certificate_sections(run),
        "class_table": per_class.class_table(run, split),
        "ranking": ranking.ranking_section(run, split),
        "reliability": curves.run_reliability(run, split),
        "risk": curves.run_risk(run, split),
        "prediction_sets": prediction_sets.prediction_sets_section(run, split),
        "ood": ood.ood_sections(run),
        "slices": run.record.slices.get(split, []),
        "found_slices": found_slices.found_slices_section(run, split),
        "data_cards": provenance.data_cards([run]),
        "environment": provenance.environment_rows([run]),
    }


def link(start: Path, target: Path) -> str:
    """A relative address from a page's folder to another page."""
    return quote(os.fsencode(os.path.relpath(target.resolve(), start.resolve())))


def _write_run(run: Run, home: Path | None, *, anew: bool) -> Path:
    """Write a run's page unless it was made from the same files."""
    path = run.folder.path / PAGE
    digest = _digest(run, link(run.folder.path, home / PAGE) if home else "")
    if anew or not _is_made_from(path, digest):
        _write(path, render_run(run, home, digest))
    return path


def _digest(run: Run, home: str) -> str:
    """A digest of 16 hexadecimal digits that changes with anything that the run's page shows."""
    folder = run.folder
    examples = sorted(folder.examples.iterdir()) if folder.examples.is_dir() else []
    stress = sorted(file for pattern in STRESS for file in folder.path.glob(pattern))
    sources = [folder.record, folder.metrics, folder.environment, folder.config, *examples, *stress]
    sources += ranking.sources(run, split_of([run]))
    sources += prediction_sets.set_sources(run, split_of([run]))
    named = [run.title, *run.overrides]
    digest = hashlib.sha256(
        "\0".join([__version__, home, *named, _style(), *map(_asset, TEMPLATES)]).encode(errors="replace")
    )
    for source in sources:
        content = source.read_bytes() if source.is_file() else b""
        digest.update(f"{source.name} {len(content)} ".encode(errors="replace") + content)
    return digest.hexdigest()[:16]


def _is_made_from(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'<meta name="made-from" content="{digest}">'.encode() in file.read(2000)


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Write the page that a template makes of its context."""
    return _write(path, _render(template, **context))


def _write(path: Path, text: str) -> Path:
    content = text.encode("utf-8", errors="replace")
    write_bytes(path, content)
    return path


def _render(template: str, **context: Any) -> str:
    script = _asset("report.js") + _asset("downloads.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    page = _environment().get_template(template)
    return page.render(
        style=Markup(_style()),
        script=Markup(script),
        policy=policy,
        notes=Footnotes(),
        **context,
    )


@cache
def _environment() -> Environment:
    environment = page_templates("report", "templates")
    environment.filters.update({name: getattr(format, name) for name in FILTERS.split()})
    environment.filters |= {"duration": duration, "command": shlex.join, "cost": written_cost}
    environment.tests["finite"] = math.isfinite
    return environment


@cache
def _style() -> str:
    return "".join(page_file(*sheet) for sheet in STYLES)


def _asset(name: str) -> str:
    return page_file("report", f"templates/{name}")


def _when(runs: Sequence[Run]) -> str:
    """The time of the newest record, not of writing, so that the same files give the same page."""
    newest = max(run.folder.record.stat().st_mtime for run in runs)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
