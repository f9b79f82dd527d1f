"""Differences over several data sets, as `stresslens compare --across` prints them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stresslens.cli.terminal import print_table

if TYPE_CHECKING:
    from stresslens.comparison.data_sets import DataSetsFile, PairAcrossSets

COLUMNS = ["data set", "difference, points", "95 % interval", "images", "with the others"]


def check_page_of(page: Path | None, out: Path) -> None:
    """Raises ConfigError, before anything is computed, for a page that cannot be written; `out` is the
    folder of runs, where some give the page."""
    from stresslens.core.errors import ConfigError
    from stresslens.report.across_data_sets import check_page

    if out.suffix.lower() == ".html":
        raise ConfigError(f"--out {out}: the page is given with --page {out}")
    if page is not None:
        check_page(page)


def print_data_sets(told: DataSetsFile) -> None:
    """Print a table for each pair of variants, and below it what it says."""
    for pair in told.pairs:
        print_table(COLUMNS, _rows(pair), f"{told.split} {told.metric}: {pair.b} minus {pair.a}")
        print("\n    ".join([pair.verdict, *pair.notes]))
    for sentence in told.left_out:
        print(sentence)


def data_sets_as_markdown(told: DataSetsFile) -> str:
    """The same as Markdown of GitHub's kind. Names cannot add to its structure."""
    from stresslens.comparison.markdown import in_markdown

    lines = [f"### {told.split} {told.metric} over data sets", ""]
    for pair in told.pairs:
        lines += [f"- {in_markdown(pair.verdict)}", *(f"  - {in_markdown(note)}" for note in pair.notes)]
    lines += [f"- {in_markdown(sentence)}" for sentence in told.left_out]
    for pair in told.pairs:
        title = in_markdown(f"{pair.b} minus {pair.a}")
        lines += ["", f"| {title}: {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(map(in_markdown, row))} |" for row in _rows(pair)]
    return "\n".join([*lines, ""])


def _rows(pair: PairAcrossSets) -> list[list[str]]:
    from stresslens.core.format import points_ends, signed

    rows = []
    for each in pair.sets:
        e = each.difference
        shrunken = "" if each.shrunken is None else signed(each.shrunken)
        rows.append([each.data_set, signed(e.value), points_ends(e), f"{e.n:,}", shrunken])
    for name, estimate in (("average", pair.average), ("a new data set", pair.new)):
        if estimate is not None:
            value = signed(estimate.value) if estimate is pair.average else ""
            rows.append([name, value, points_ends(estimate), "", ""])
    return rows
