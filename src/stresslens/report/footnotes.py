"""Footnotes of a page: how the intervals of its tables were computed, each text once."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from stresslens.core.format import footnote
from stresslens.core.types import Estimate


class Footnotes:
    """The texts in the order in which the page first refers to them; a text has one number wherever it
    is referred to."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def of(self, *columns: Iterable[Estimate | None]) -> Markup:
        """The reference of a column's head to the method of its intervals; empty without intervals."""
        return self.mark(footnote(estimate for column in columns for estimate in column))

    def mark(self, text: str) -> Markup:
        """A reference to a text, as a link; empty for an empty text."""
        if not text:
            return Markup("")
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text) + 1
        return Markup(
            f'<a class="note" href="#note-{number}" role="doc-noteref" aria-label="interval: note {number}">'
            f"{number}</a>"
        )
