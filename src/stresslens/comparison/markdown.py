"""A comparison as Markdown, for the comment of a pull request or for a page."""

from __future__ import annotations

import re

from stresslens.comparison.ablation_words import ablation_sentences, headings, worth_rows
from stresslens.comparison.folders import FolderComparison
from stresslens.comparison.margins import in_points
from stresslens.comparison.schema import Ablation, WorthTable, verdicts_on_margins
from stresslens.core.format import percent, plain
from stresslens.metrics.measures import measure_of


def markdown_of(result: FolderComparison) -> str:
    """The verdicts, and a table of all runs or variants with interval and n, as Markdown of GitHub's kind.

    Below verdicts that are not distinguishable it says how many images and seeds would be needed. Names of
    runs cannot add to its structure.
    """
    compared = result.comparison
    measure = measure_of(compared.metric)
    written = percent if measure.is_share else plain
    contrasts = compared.by_verdict
    lines = [f"### {compared.split} {compared.metric}: {_summary(result)}", ""]
    if compared.best:
        lines.append(f"- {in_markdown(compared.best.said)}")
    for verdict in dict.fromkeys(compared.verdicts):
        lines.append(f"- {in_markdown(verdict)}")
        same_pair = contrasts.get(verdict, [])
        plans = dict.fromkeys(each.plan for each in same_pair if each.plan and not each.real)
        lines += [f"  - {in_markdown(plan)}" for plan in plans]
        for asked in verdicts_on_margins(same_pair):
            lines.append(f"- {in_markdown(asked.verdict)}")
            lines += [f"  - {in_markdown(asked.plan)}"] if asked.plan else []
    if compared.ablation is not None:
        lines += [each for table in compared.ablation.tables for each in _worth(compared.ablation, table)]
        lines += [f"- {in_markdown(compared.ablation.excluded)}"] if compared.ablation.excluded else []
    lines += [f"- {in_markdown(cost.verdict)}" for cost in compared.costs]
    lines += [
        f"- {in_markdown(sentence)}" for sentence in (result.changes.sentences if result.changes else ())
    ]
    unit = ", %" if measure.is_share else f", {measure.unit}" if measure.unit else ""
    kind = "run" if result.kind == "run" else "variant"
    lines += ["", f"| {kind} | {compared.metric}{unit} (95 % interval) | n | method |", "|---|---|---|---|"]
    lines += [
        f"| {in_markdown(name)} | {written(estimate)} | {estimate.n:,} | {in_markdown(estimate.method)} |"
        for name, estimate in compared.recipes.items()
    ]
    return "\n".join([*lines, ""])


def _worth(ablation: Ablation, table: WorthTable) -> list[str]:
    """What each ingredient is worth by one metric."""
    head = headings(table)
    rows = [head, ["---"] * len(head), *worth_rows(ablation, table)]
    cells = [[cell if cell == "---" else in_markdown(cell) for cell in row] for row in rows]
    said = [f"- {in_markdown(text)}" for text in ablation_sentences(table)]
    return ["", *(f"| {' | '.join(row)} |" for row in cells), "", *said]


def _summary(result: FolderComparison) -> str:
    """What was decided, in a few words."""
    pairs = result.comparison.contrasts
    gated = [pair.not_worse for pair in pairs if pair.not_worse]
    if gated:
        shown, more = sum(each.shown for each in gated), f"by more than {in_points(gated[0].margin)}"
        if len(gated) == 1:
            return f"{'not' if shown else 'may be'} worse {more}"
        return f"{shown} of {len(gated)} are not worse {more}"
    if result.kind == "study":
        return f"{sum(pair.real for pair in pairs)} of {len(pairs)} differences are real"
    better = sum(pair.better > 0 for pair in pairs)
    counts = {"worse": len(result.regressions), "better": better}
    counts["not distinguishable"] = len(pairs) - sum(counts.values())
    said = [what if len(pairs) == 1 else f"{n} {what}" for what, n in counts.items() if n]
    return f"{', '.join(said)}, against the first"


def in_markdown(text: str) -> str:
    """Text without characters that Markdown would read as structure."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))
