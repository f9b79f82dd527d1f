"""Programs that compute an exported page: a headless Chromium, and Node for its engine alone."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from stresslens.evaluation.flat_graph import FlatGraph

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NODE = shutil.which("node")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node to run the page's script with")
ENGINE = (files("stresslens.evaluation") / "templates" / "engine.js").read_text(encoding="utf-8")


def dom_of(page: Path) -> str:
    """The document of a page after its script has run, as Chromium writes it."""
    assert CHROMIUM is not None
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    options = ["--headless", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *as_root, *options, profile, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def in_chromium(page: Path, script: str, given: Any, folder: Path) -> Any:
    """What an async function of the page's `stresslens` and of given values returns in Chromium. It is
    added to a copy of the page, whose policy would not let it run."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    called = (
        f"<script>(async given => {{ {script} }})({json.dumps(given)})"
        ".catch(error => ({ error: String(error) }))"
        ".then(result => { document.title = ''; document.body.innerHTML = '<pre></pre>';"
        " document.querySelector('pre').textContent = JSON.stringify(result); })</script></body>"
    )
    copy = folder / "asked.html"
    copy.write_text(text.replace("</body>", called), encoding="utf-8")
    found = re.search(r"<pre>(.*)</pre>", dom_of(copy), re.S)
    assert found is not None
    result = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert not (isinstance(result, dict) and "error" in result), result
    return result


def in_node(graph: FlatGraph, x: Tensor, folder: Path, script: str = "given.images.map(run)") -> Any:
    """The value of an expression of `run`, which computes the graph in Node, and of `given`: by default the
    logits (N, K) of images x (N, C, H, W)."""
    assert NODE is not None
    given = {
        "steps": list(graph.steps),
        "content": base64.b64encode(graph.content).decode(),
        "images": x.flatten(1).tolist(),
        "shape": list(x.shape[1:]),
    }
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    code = (
        f"{ENGINE}\nconst given = JSON.parse(require('fs').readFileSync('given.json', 'utf8'));"
        "const loaded = engine.load(given.steps, given.content);"
        "const run = image => Array.from(loaded(Float32Array.from(image)));"
        f"console.log(JSON.stringify({script}));"
    )
    (folder / "asked.js").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [NODE, "asked.js"], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
