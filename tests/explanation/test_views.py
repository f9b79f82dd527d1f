"""Views as a stage of a run and by the verb: their files, what is not made twice, adversarial
images, the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stresslens.cli.main import app
from stresslens.config import study_file
from stresslens.config.schema import Robustness, Views
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json
from stresslens.core.panels import Grid, Picture
from stresslens.core.run_folder import RunFolder
from stresslens.explanation.svg import png, svg
from stresslens.explanation.views import adversarials_of
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

QUICK: list[Any] = [
    "filters",
    {"activations": {"images": 2, "channels": 3}},
    {"class_image": {"steps": 3}},
    "embedding",
]


def looked(task: Task, asked: Any, **others: Any) -> dict[str, Any]:
    return succeeded(stages.carry_out(replace(task, config=replace(task.config, views=asked, **others))))


def test_a_stage_leaves_pictures_and_what_they_say(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn")
    record = looked(task, QUICK)
    assert record.reads_of_test == 1 + 4
    results = {read_json(file)["view"]: file.parent for file in (task.folder / "views").glob("*/result.json")}
    assert sorted(results) == ["activations", "class_image", "embedding", "filters"]
    for folder in results.values():
        result = read_json(folder / "result.json")
        for part in result["parts"]:
            if part["kind"] == "grid":
                pictures = [name for row in part["captions"] for name in row if name is not None]
                files = list((folder / part["file"].removesuffix(".svg")).glob("*.png"))
                assert len(files) == len(pictures)
                with Image.open(files[0]) as picture:
                    assert max(picture.size) >= 112
                assert (folder / part["file"]).read_text().startswith("<svg")
    kept = (results["filters"] / "result.json").stat().st_mtime_ns
    again = looked(task, Views([*QUICK[:1], "neighbours"]))
    assert again.reads_of_test == 1 + 5
    assert (results["filters"] / "result.json").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_what_the_attacks_have_kept_is_shown_the_nearest_of_each_image(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn", epochs=5)
    with pytest.raises(ConfigError, match="the run has no adversarial images"):
        looked(task, ["adversarial_examples"])
    attacked = Robustness(radii=[0.1, 0.3], protocol=["fgsm"], images=20, audit=False)
    looked(task, ["adversarial_examples"], robustness=attacked)
    assert task.data is not None
    assert task.data.test is not None
    found = adversarials_of(RunFolder(task.folder), "test", task.data.test)
    assert found is not None
    x, x_adv, y = found
    assert len(x) == len(x_adv) == len(y) > 0
    assert float((x - x_adv).abs().max()) <= 0.3 + 1e-6
    assert adversarials_of(RunFolder(task.folder), "validation", task.data.test) is None
    result = read_json(next((task.folder / "views").glob("adversarial_examples-*/result.json")))
    sizes = result["facts"]["largest_change"]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("[filtrs]", "no view is called 'filtrs'; did you mean 'filters'"),
        ("[{embedding: {method: umap}}]", "views.0.embedding.method"),
        ("{images: 3}", "kinds"),
    ],
)
def test_what_cannot_be_seen_is_told_before_anything_is_trained(
    tmp_path: Path, asked: str, message: str
) -> None:
    (tmp_path / "s.yaml").write_text(f"data: digits\nruns: {{a: {{}}}}\nviews: {asked}\n")
    with pytest.raises(ConfigError, match=message):
        study_file.read_study(tmp_path / "s.yaml")


@pytest.mark.slow
def test_the_page_and_the_verb(tmp_path: Path) -> None:
    values = {
        "data": "digits",
        "model": "simple_cnn",
        "train": {
            "epochs": 1,
            "threads": 1,
            "precision": "float32",
            "memory_format": "contiguous",
            "device": "cpu",
        },
        "views": QUICK,
    }
    study = pipeline.run(study_file.expand_study(values, [], name="s", base=tmp_path), out=tmp_path)
    run = study / "run" / "seed-0"
    page = (run / "report.html").read_text()
    section = page[page.index('id="views"') :]
    section = section[: section.index("</section>")]
    assert section.count("data:image/svg+xml;base64") == 1 + 2 + 1
    assert "straight edge explains" in section.replace("A straight", "a straight")
    assert section.count('class="chart"') == 3
    typed = CliRunner().invoke(app, ["explain", str(run), "--view", "neighbours"])
    assert typed.exit_code == 0, typed.output
    assert "nearest training images have the predicted class" in typed.stdout
    assert not (run / "explanations").exists()
    assert "neighbours" in (run / "report.html").read_text()
    broken = next((run / "views").glob("filters-*"))
    (broken / "grid-1.svg").unlink()
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    assert "Missing, or too large for this page" in (run / "report.html").read_text()


def test_a_grid_is_drawn_whole_and_names_are_escaped() -> None:
    cell = Picture(np.zeros((4, 6), np.uint8), "<b>&", wrong=True)
    drawn = svg(
        Grid("t", [[cell, None], [None, cell]], ["<row>", "two"], ["one", "<column>"], (-1.0, 1.0)), "<unit>"
    )
    assert drawn.count("<image") == 3
    assert drawn.count('fill="none"') == 2
    assert "<b>" not in drawn
    assert "&lt;row&gt;" in drawn
    assert "&lt;unit&gt;" in drawn
    ElementTree.fromstring(drawn)
    content = png(np.zeros((4, 6, 3), np.uint8))
    assert content[:4] == b"\x89PNG"
