"""Reads the page that `stresslens export --to page` writes."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError
from stresslens.evaluation.flat_graph import FlatGraph

DATA = re.compile(r'<script type="(?:application/json|text/plain)" id="(model|weights)">(.*?)</script>', re.S)


def read_page(path: Path) -> tuple[FlatGraph, dict[str, Any]]:
    """The flat graph of a page, and what else it holds. Raises ConfigError for another page."""
    found = dict(DATA.findall(path.read_text(encoding="utf-8", errors="replace")))
    try:
        content = json.loads(found["model"])
        return FlatGraph(content["steps"], base64.b64decode(found["weights"])), content
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path} is no page that `stresslens export --to page` wrote") from error


def refused_page(path: Path) -> ConfigError:
    """What to say where a page is given to be opened here."""
    try:
        run = f" ({read_page(path)[1]['facts']['run']})"
    except (ConfigError, OSError, KeyError, TypeError):
        run = ""
    return ConfigError(
        f"{path} is a page for a browser, which predicts there; for predictions here give the run{run}, "
        "or another export of it (--to onnx, torch or safetensors)"
    )
