"""A page as the tests read it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from stresslens.report.page import write_report

STUDY = (
    "verdicts glance results expectation contrasts matrix curves confusion classes cost confidence data "
    "variants runs environment reproduce notes"
)
RUN = (
    "verdicts glance scores curves confusion pictures classes confidence slices layers data history "
    "environment reproduce notes"
)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text outside scripts and styles,
    and the raw scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside].append(data)
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name))]

    @property
    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


def page_of(folder: Path) -> tuple[str, Page]:
    html = write_report(folder).read_text(encoding="utf-8")
    return html, Page(html)


def pages_of(study: Path) -> list[tuple[str, Page]]:
    """The study's page and every run's."""
    write_report(study)
    return [
        (html, Page(html))
        for path in sorted(study.rglob("report.html"))
        if (html := path.read_text(encoding="utf-8"))
    ]
