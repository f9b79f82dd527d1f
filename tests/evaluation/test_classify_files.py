"""Picture files of any kind through a trained run: calibrated, flagged, and none lost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stresslens import api
from stresslens.cli.main import app
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_json, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.classify_files import Classifier, picture_files
from stresslens.evaluation.predictor import open_predictor, with_prompts
from stresslens.study import stages
from stresslens.training.task import Task


@pytest.fixture
def run(task_of: Callable[..., Task]) -> Path:
    task = task_of({"mlp": {"widths": [32]}}, epochs=60, lr=0.01)
    stages.carry_out(task)
    return task.folder


@pytest.fixture
def pictures(tmp_path: Path, small: Data) -> Path:
    """20 test images as PNG, noise, and two files that are no pictures."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    assert small.test is not None
    for k, image in enumerate(small.test.images[:20]):
        Image.fromarray((image[0].float() * 255 / 16).round().to(torch.uint8).numpy()).save(
            folder / f"{k:02d}.png"
        )
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "deeper" / "noise.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_folders_are_looked_into_and_nothing_is_lost(run: Path, pictures: Path) -> None:
    files = picture_files([pictures, pictures / "missing.png"])
    found = list(Classifier(open_predictor(run)).classify(files))
    assert [Path(row.file).name for row in found] == [
        *(f"{k:02d}.png" for k in range(20)),
        "broken.png",
        "noise.jpg",
        "missing.png",
    ]
    assert {Path(row.file).name for row in found if row.unreadable} == {"broken.png", "missing.png"}
    for row in found:
        if not row.unreadable:
            probabilities = [p for _, p in row.classes]
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) <= 1 + 1e-9


def test_a_picture_is_classified_as_the_test_image_it_is(run: Path, pictures: Path, small: Data) -> None:
    """The same bits as the stored predictions, after the temperature."""
    classifier = Classifier(open_predictor(run))
    scores = RunFolder(run).load_predictions("test")["scores"][:20]
    temperature = read_json(run / "record.json")["calibration"]["temperature"]
    expected = torch.softmax(torch.from_numpy(scores / temperature), 1).max(1)
    found = list(classifier.classify(sorted(pictures.glob("[0-9]*.png")), top=1))
    for row, probability, label in zip(
        found, expected.values.tolist(), expected.indices.tolist(), strict=True
    ):
        assert row.classes[0][0] == small.classes[label]
        assert row.classes[0][1] == pytest.approx(probability, abs=0.02)  # 16 grey levels became 256


def test_noise_is_out_of_distribution_and_test_images_are_not(run: Path, pictures: Path) -> None:
    found = {
        Path(row.file).name: row
        for row in Classifier(open_predictor(run)).classify(picture_files([pictures]))
    }
    assert found["noise.jpg"].out_of_distribution
    assert sum(bool(found[f"{k:02d}.png"].out_of_distribution) for k in range(20)) <= 3


def test_a_run_without_validation_says_so(run: Path, pictures: Path) -> None:
    RunFolder(run).likeness.unlink()
    record = read_json(run / "record.json")
    del record["calibration"]
    write_json(run / "record.json", record)
    (row,) = Classifier(open_predictor(run)).classify([pictures / "00.png"])
    assert row.out_of_distribution is None
    assert row.ood_p_value is None
    result = CliRunner().invoke(app, ["predict", str(run), str(pictures / "00.png")])
    assert "not calibrated" in result.stdout
    assert "out-of-distribution images are not marked" in result.stdout


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image file"):
        picture_files([tmp_path])


@pytest.fixture
def invoke(run: Path, pictures: Path) -> Callable[..., tuple[str, str]]:
    def typed(*options: str) -> tuple[str, str]:
        result = CliRunner().invoke(app, ["predict", str(run), str(pictures), *options])
        return result.stdout, str(result.exception)

    return typed


def test_as_csv_and_json_and_a_table(invoke: Callable[..., tuple[str, str]]) -> None:
    out, error = invoke("--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == [
        "file",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
        "out_of_distribution",
        "ood_p_value",
        "unlike",
        "p_like",
    ]
    assert len(rows) == 21
    assert all(row["unlike"] == row["out_of_distribution"] for row in rows)
    assert all(row["p_like"] == row["ood_p_value"] for row in rows)
    assert "broken.png: " in error
    out, error = invoke("--json")
    document = json.loads(out)
    assert len(document["pictures"]) == 21
    for picture in document["pictures"]:
        assert list(picture) == [
            "file",
            "predictions",
            "out_of_distribution",
            "ood_p_value",
            "unlike",
            "p_like",
        ]
        assert picture["unlike"] == picture["out_of_distribution"]
        assert picture["p_like"] == picture["ood_p_value"]
    assert document["calibrated_on"] == "validation"
    assert 0.01 <= document["false_alarm_rate"] <= 0.02
    assert len(document["unreadable"]) == 1
    out, _ = invoke()
    assert "out of distribution" in out
    assert "calibrated on the validation images" in out


def test_only_one_form_at_a_time(invoke: Callable[..., tuple[str, str]]) -> None:
    assert "--csv goes neither with --json" in invoke("--csv", "--json")[1]


# --- captions of one's own ----------------------------------------------------------------------------------

LAYOUT = {"embed": 8, "image": {"width": 8, "layers": 1}, "text": {"width": 8, "layers": 1}}


@pytest.fixture
def clip(task_of: Callable[..., Task]) -> Path:
    """A zero-shot run: weights as they were drawn."""
    task = task_of({"openclip": {"layout": LAYOUT}}, epochs=0)
    stages.carry_out(task)
    return task.folder


def test_a_run_classifies_among_captions(clip: Path, pictures: Path, small: Data) -> None:
    """With the run's own captions the answers are the run's own, on the uncalibrated scale."""
    classifier = Classifier(open_predictor(clip, captions=small.classes, templates=["a photo of a {}."]))
    files = sorted(pictures.glob("[0-9]*.png"))
    x = torch.stack([torch.from_numpy(np.array(Image.open(file)))[None] for file in files]).float() / 255
    with torch.no_grad():
        expected = torch.softmax(api.load(clip)(x), 1)
    for row, scores in zip(classifier.classify(files, top=10), expected, strict=True):
        assert [name for name, _ in row.classes] == [
            small.classes[k] for k in scores.argsort(descending=True)
        ]
        assert [p for _, p in row.classes] == pytest.approx(
            scores.sort(descending=True).values.tolist(), abs=1e-5
        )
    assert classifier.facts.temperature == 1
    assert classifier.facts.calibrated_on is None


def test_python_takes_captions_and_the_model_stays_as_it_is(clip: Path) -> None:
    model = api.load(clip)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = api.predict(model, x)
    asked = api.predict(model, x, prompts=["an apple", "a banana"])
    assert asked.shape == (3, 2)
    net, front = model.get_submodule("net"), model.get_submodule("normalize")
    with torch.no_grad():
        logits = with_prompts(net, ["an apple", "a banana"])(front(x))
    assert asked == pytest.approx(torch.softmax(logits.double(), 1).numpy(), abs=1e-6)
    assert not np.allclose(
        asked, api.predict(model, x, prompts=["an apple", "a banana"], templates=["a bad photo of {}", "{}"])
    )
    assert np.array_equal(api.predict(model, x), before)


CAPTIONS = {
    "one": (["an apple"], "1 caption to choose from; give at least two"),
    "an empty one": (["an apple", "  "], "caption 2 is empty"),
    "the same": (["an apple", "a banana", "an apple"], "the caption 'an apple' is given twice"),
    "the same but for case": (["an Apple", "an apple"], "ignores case"),
}


@pytest.mark.breadth(2)
@pytest.mark.parametrize("which", CAPTIONS)
def test_captions_that_make_no_sense(clip: Path, which: str) -> None:
    captions, says = CAPTIONS[which]
    with pytest.raises(ConfigError, match=says):
        open_predictor(clip, captions=captions)


def test_captions_for_a_model_without_a_text_side(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"^mlp has no text side"):
        open_predictor(run, captions=["an apple", "a banana"])
    with pytest.raises(ConfigError, match=r"^the model has no text side"):
        with_prompts(torch.nn.Linear(2, 2), ["an apple", "a banana"])


def test_captions_from_the_command_line(clip: Path, pictures: Path) -> None:
    def typed(*words: str) -> tuple[str, str]:
        result = CliRunner().invoke(app, ["predict", str(clip), str(pictures / "00.png"), *words])
        return result.stdout, str(result.exception)

    out, _ = typed("--prompts", "an apple", "--prompts", "a banana")
    assert "an apple" in out
    assert "not calibrated: the captions are your own" in out
    out, _ = typed("--prompts", "apple", "--prompts", "banana", "--templates", "a photo of a {}", "--json")
    document = json.loads(out)
    assert {each["class"] for each in document["pictures"][0]["predictions"]} == {"apple", "banana"}
    assert document["calibrated_on"] is None
    assert "has no {}" in typed("--prompts", "apple", "--prompts", "banana", "--templates", "a photo")[1]
    assert "give these with --prompts" in typed("--templates", "a photo of a {}")[1]


@pytest.mark.slow
def test_a_page_with_captions_and_two_runs(clip: Path, pictures: Path, tmp_path: Path) -> None:
    """All captions are on it, and `--top` of them are printed, as without a page."""
    captions = [word for k in range(5) for word in ("--prompts", f"caption {k}")]
    page = tmp_path / "page.html"
    words = ["predict", str(clip), str(clip), str(pictures / "00.png"), *captions, "--page", str(page)]
    result = CliRunner().invoke(app, words)
    without = CliRunner().invoke(app, words[:-2]).stdout
    assert result.stdout == f"{without}page: {page}\n"
    plain, paged = (
        json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout) for given in (words[:-2], words)
    )
    assert paged == plain
    assert [len(run["pictures"][0]["predictions"]) for run in paged["runs"]] == [3, 3]
    text = page.read_text()
    assert all(f"<bdi>caption {k}</bdi>" in text for k in range(5))
    assert text.count('<td class="bar"') == 10
    assert "data:image/webp" in text
    refused = CliRunner().invoke(app, [*words, "--csv"])
    assert "--csv goes neither with --json nor with --page" in str(refused.exception)
