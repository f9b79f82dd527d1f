"""The surest mistakes at the head of a page: which, and what is read for them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import write_run
from PIL import Image

from stresslens.core.files import write_json
from stresslens.core.run_folder import RunFolder
from stresslens.report import gallery
from stresslens.report.load import read_run


def test_the_surest_mistakes_read_only_the_sheets_they_are_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path, "a", 0)
    listed = run / "examples" / "examples.json"
    entries = json.loads(listed.read_text())
    mistakes = [entry for entry in entries if entry["kind"] != "sample"]
    shutil.copy(run / "examples" / "pictures.png", run / "examples" / "more.png")
    mistakes[0]["file"] = "gone.png"
    mistakes[1]["box"] = [0, 0, 0, 8]
    for entry in mistakes[2:4]:
        entry["file"] = "more.png"
    mistakes[6]["file"] = "last.png"
    write_json(listed, entries)
    read: list[str] = []
    content = gallery._content
    monkeypatch.setattr(
        gallery, "_content", lambda folder, name, most: (read.append(name), content(folder, name, most))[1]
    )
    found = gallery.surest_mistakes(read_run(RunFolder(run)), "a", 0, "")
    assert found is not None
    assert read == ["gone.png", "pictures.png", "more.png"]
    assert [each.probability for each in found.pictures] == [each["probability"] for each in mistakes[2:6]]
    with Image.open(run / "examples" / "pictures.png") as sheet:
        expected = []
        for entry in mistakes[2:6]:
            left, top, width, height = entry["box"]
            cut = sheet.convert("RGBA").crop((left, top, left + width, top + height))
            expected.append(np.asarray(cut))
    _, _, data = found.sheet.partition("base64,")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(")")[0]))) as strip:
        assert np.array_equal(np.asarray(strip), np.concatenate(expected, 1))
    assert ";--x:24;--y:0;--pw:8;--ph:8" in found.pictures[3].style
