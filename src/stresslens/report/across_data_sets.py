"""The page of `stresslens compare --across --page`: differences over several data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stresslens.charts.chart import Chart
from stresslens.comparison.data_sets import DataSetsFile, PairAcrossSets
from stresslens.core.errors import ConfigError
from stresslens.core.format import p_value
from stresslens.metrics.measures import measure_of
from stresslens.report.comparison import forest_chart
from stresslens.report.page import PAGE, link, write_page

ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class PairSection:
    """A pair of variants: its chart, and a link to the page of each study that has one."""

    pair: PairAcrossSets
    chart: Chart
    links: Sequence[str]
    anchor: str

    @property
    def title(self) -> str:
        return f"{self.pair.b} minus {self.pair.a}"

    @property
    def figures(self) -> list[tuple[str, str]]:
        """What says whether the data sets may be pooled, in numbers; empty for too few of them."""
        pair = self.pair
        if pair.spread is None or pair.i2 is None or pair.q_p is None:
            return []
        return [
            ("Standard deviation between data sets", f"{100 * pair.spread:.1f} points"),
            ("I²: the part of what is seen that chance does not explain", f"{100 * pair.i2:.0f} %"),
            ("Cochran's Q: p of equal differences on all data sets", p_value(pair.q_p)),
            ("p of no difference on average", p_value(pair.p)),
            ("the same after Holm's correction over the pairs", p_value(pair.p_holm)),
        ]


def write_across(path: Path, told: DataSetsFile) -> Path:
    """Write the page of a comparison over data sets, offline in one file, and return its path. Raises
    ConfigError for a name that does not end in .html."""
    check_page(path)
    sections = [
        PairSection(pair, forest_chart(pair), _links(path.parent, pair), f"pair-{place}")
        for place, pair in enumerate(told.pairs, 1)
    ]
    data_sets = list(dict.fromkeys(each.data_set for pair in told.pairs for each in pair.sets))
    contents = [("verdicts", "Verdicts"), *((each.anchor, each.title) for each in sections)]
    if told.left_out:
        contents.append(("left-out", "Not compared"))
    return write_page(
        path,
        "across.html.j2",
        title=f"{measure_of(told.metric).words} over {len(data_sets)} data sets",
        contents=contents,
        made_from="",
        told=told,
        words=told.metric if told.metric.startswith("robust@") else measure_of(told.metric).words,
        data_sets=data_sets,
        sections=sections,
    )


def check_page(path: Path) -> None:
    """Raises ConfigError for a file of a page whose name does not end in .html, and for a folder."""
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise ConfigError(f"{path}: a page is an HTML file; end its name with .html")


def _links(start: Path, pair: PairAcrossSets) -> list[str]:
    """The address of the page of each data set's study; empty without one."""
    pages = [Path(each.folder) / PAGE for each in pair.sets]
    return [link(start, page) if page.is_file() else "" for page in pages]
