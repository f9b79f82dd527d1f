"""Cards: how a notebook shows a result, in the look of the report.

A card is HTML of its own: its style sheet is inside it and applies to nothing else. Its colours
follow the theme of Jupyter, VS Code and Colab, and elsewhere that of the reader's system.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from stresslens.core.page_files import page_file
from stresslens.core.text import brief

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIGHT = '[data-jp-theme-light="true"] &, .vscode-light &, html[theme="light"] &'
DARK = '[data-jp-theme-light="false"] &, .vscode-dark &, html[theme="dark"] &'


def card(lead: str, *parts: str | Markup, sheets: Iterable[tuple[str, str]] = ()) -> str:
    """A card: a first sentence, and parts below it; text that is no Markup is escaped.

    `sheets` (package, file) are further style sheets for the parts.
    """
    body = Markup("").join(part if isinstance(part, Markup) else sentence(part) for part in parts if part)
    first = Markup('<p class="lead">{}</p>').format(Markup("<bdi>{}</bdi>").format(lead)) if lead else ""
    style = Markup(_style(("core", "card.css"), *sheets))
    html = Markup('<div class="stresslens"><style>{}</style>{}{}</div>').format(style, first, body)
    return html.encode("utf-8", "replace").decode("utf-8")


def sentence(text: str) -> Markup:
    return Markup("<p><bdi>{}</bdi></p>").format(text)


def sentences(texts: Sequence[str], most: int = 6) -> Markup:
    """The first `most` texts as a list, and how many more there are."""
    items = Markup("").join(
        Markup("<li><bdi>{}</bdi></li>").format(brief(text, 240)) for text in texts[:most]
    )
    more = Markup("<li>and {} more</li>").format(len(texts) - most) if len(texts) > most else Markup("")
    return Markup("<ul>{}{}</ul>").format(items, more) if texts else Markup("")


def folded(title: str, texts: Sequence[str]) -> Markup:
    """All texts as a list that a click on the title unfolds; nothing where there is none."""
    unfolded = sentences(texts, len(texts))
    return Markup("<details><summary>{}</summary>{}</details>").format(title, unfolded) if texts else unfolded


def pictures(pixels: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Markup:
    """Images (H, W) or (H, W, 3), each with its caption, in a row."""
    from stresslens.core.thumbnails import data_address

    return Markup('<div class="pictures">{}</div>').format(
        Markup("").join(
            Markup('<figure><img alt="" src="{}"><figcaption><bdi>{}</bdi></figcaption></figure>').format(
                data_address(each), brief(caption, 24)
            )
            for each, caption in zip(pixels, captions)
        )
    )


def light_colours() -> dict[str, str]:
    """The values of the style sheets' variables on a light page, by name."""
    return dict(re.findall(r"--([\w-]+): ([^;]+);", _schemes()[0]))


def _schemes() -> tuple[str, str]:
    """The declarations of the light and of the dark colours."""
    light, dark = re.findall(r":root \{(.*?)\}", page_file("core", "colours.css"), re.S)
    return light.replace("color-scheme: light dark;", "").strip(), dark.strip()


@cache
def _style(*sheets: tuple[str, str]) -> str:
    light, dark = _schemes()
    rules = "".join(page_file(*sheet) for sheet in sheets)
    themes = (
        f"@media screen and (prefers-color-scheme: dark) {{ & {{ {dark} }} }}\n"
        f"{LIGHT} {{ {light} }}\n{DARK} {{ {dark} }}\n"
    )
    return f".stresslens {{ {light}\n{themes}{rules}}}"
