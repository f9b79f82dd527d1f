"""Settings of the documentation site, which `make docs` builds into docs/_build/html.

The pages are the Markdown files of this folder. Parts that are made from the code stand behind marks
(`code_reference`). Files above this folder, which pages link to as on GitHub, have pages too.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from code_reference import with_parts
from draw_architecture import drawing

from stresslens import __version__

project = "stresslens"
release = version = __version__
html_title = f"stresslens {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # a part of a page may begin at a deeper heading

myst_heading_anchors = 4
highlight_language = "none"

default_role = "literal"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # 100 characters fit
html_extra_path = (
    ["_build/gallery"] if Path(__file__).with_name("_build").joinpath("gallery").exists() else []
)
html_copy_source = False
html_show_search_summary = False  # a browser cannot fetch pages from a folder
html_show_sphinx = False
html_show_copyright = False

ABOVE = {
    r"(?:\.\./)+CONTRIBUTING\.md(#[\w-]*)?": r"/contributing.md\1",
    r"(?:\.\./)+README\.md(?:#[\w-]*)?": "/start.md",
    r"(?:\.\./)+studies/([\w-]+)\.yaml": r"/reference/shipped-studies.md#\1",
}
"""Links to files above this folder, and the pages that the site has for them."""


MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)
"""The diagram of the packages, the only one there is. A browser needs a large script for Mermaid."""


def _site_text(app: Any, page: str, source: list[str]) -> None:
    text = with_parts(source[0])
    for link, place in ABOVE.items():
        text = re.sub(rf"\]\({link}\)", f"]({place})", text)
    source[0] = MERMAID.sub(lambda _: f"```{{raw}} html\n{drawing()}\n```", text)


def setup(app: Any) -> None:
    app.connect("source-read", _site_text)
