"""docs/notebook.md: its blocks run as the cells of a notebook, and every cell shows something short."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stresslens.core.run_folder import run_folders

ROOT = Path(__file__).parents[1]
CELLS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8"), re.S)
MOST_TEXT, MOST_HTML = 3_000, 100_000

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
def test_the_page_runs_as_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        data = [output.get("data", {"text/plain": output.get("text", "")}) for output in cell.outputs]
        assert data, cell.source
        for shown in data:
            assert len(shown["text/plain"]) < MOST_TEXT, cell.source
            assert len(shown.get("text/html", "")) < MOST_HTML, cell.source
    assert (tmp_path / "robust.svg").is_file()
    _keep_a_page(notebook, tmp_path)


def test_the_page_runs_as_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in CELLS:
        exec(compile(cell, "notebook.md", "exec"), names)
    assert (tmp_path / "robust.csv").read_text(encoding="utf-8").startswith("line,")
    assert len(run_folders(tmp_path / "runs")) == 2


def _keep_a_page(notebook: Any, folder: Path) -> None:
    """The executed notebook as HTML, as nbconvert writes it."""
    exporters = pytest.importorskip("nbconvert.exporters")
    page, _ = exporters.HTMLExporter().from_notebook_node(notebook)
    (folder / "notebook.html").write_text(page, encoding="utf-8")
    assert page.count('class="stresslens"') >= 8
