"""The page of a study: one offline HTML file, made from the files of its runs alone."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stresslens.core.durations import duration
from stresslens.core.results import write_atomically
from stresslens.report import sections, wording
from stresslens.report.reading import Study, read_study


def write_report(study: Path) -> Path:
    """Writes `report.html` into a study's folder, or into a single run's, and returns its path.

    Raises ConfigError where there is no run.
    """
    content = render(read_study(study)).encode("utf-8", errors="replace")
    path = study / "report.html"
    write_atomically(path, lambda file: file.write(content))
    return path


def render(study: Study) -> str:
    """The page as text. Sections without data are left out."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    recipes = sections.headline(study)
    scores = sections.scores(study)
    watched = [run for run in study.runs if run.record.watched_test]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            when=_when(study),
            versions=sorted({run.record.version for run in study.runs} - {""}),
            style=Markup(_asset("report.css")),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            watched=bool(watched),
            reads=sum(run.record.reads_of_test for run in watched),
            verdicts=sections.verdicts(study),
            unfinished=sections.unfinished(study),
            recipes=recipes,
            several_seeds=any(len(recipe.finished) > 1 for recipe in recipes),
            scores=scores,
            score_notes=sections.score_notes(scores),
            accuracy_chart=sections.accuracy_chart(study),
            contrasts=study.comparison.contrasts if study.comparison else [],
            contrasts_chart=sections.contrasts_chart(study),
            curves=sections.curves(study),
            confusions=sections.confusions(study),
            class_tables=sections.class_tables(study),
            galleries=sections.galleries(study),
            layer_tables=sections.layer_tables(study),
            data_cards=sections.data_cards(study),
            accuracies=[run.record.scores.get(study.split, {}).get("accuracy") for run in study.runs],
            environment=sections.environment(study),
            configs=sections.configs(study),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stresslens.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = ("percent", "plain", "points", "number", "count", "p_value", "span", "over", "footnote")
    environment.filters.update({name: getattr(wording, name) for name in filters})
    environment.filters |= {"duration": duration, "command": shlex.join}
    environment.tests["finite"] = math.isfinite
    return environment


def _asset(name: str) -> str:
    return (files("stresslens.report") / "templates" / name).read_text(encoding="utf-8")


def _when(study: Study) -> str:
    """When the newest record was written, so that the same files give the same page."""
    newest = max(run.folder.record.stat().st_mtime for run in study.runs)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
