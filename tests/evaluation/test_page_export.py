"""The exported page: what it holds, that it is closed to the outside, and that a browser answers as the
run does."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_programs import dom_of, in_chromium, needs_chromium
from PIL import Image
from torch import nn

import stresslens as sl
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json
from stresslens.core.image_files import Frame, as_shown
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import page_export
from stresslens.evaluation.export import export_run
from stresslens.evaluation.guarantees import Wanted, calibration_images, guarantees_of
from stresslens.evaluation.page_export import chosen_images
from stresslens.evaluation.page_file import read_page
from stresslens.evaluation.predictor import open_predictor
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import Predictions
from stresslens.plugins.explainers.occlusion import occlusion


@pytest.fixture
def page(run: RunFolder) -> Path:
    return export_run(run, "page").file


def test_what_export_says_of_it(run: RunFolder) -> None:
    found = export_run(run, "page")
    assert found.file == run.path / "exports" / "page.html"
    assert (found.images, found.shown, found.opset) == (64, "validation and random", None)
    assert found.difference < 1e-5
    assert found.size == found.file.stat().st_size
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(read_page(found.file)[0].run(x), open_model(run)(x), atol=1e-5)


def test_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for forbidden in (
        r"https?://",
        r"\bsrc=",
        r"\bhref=(?!\"#)",
        "@import",
        r"url\(",
        "fetch\\(",
        "import\\(",
    ):
        assert not re.search(forbidden, text), forbidden
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; ")
    assert "unsafe" not in rules
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules
        assert tag == "style" or len(content.encode()) < 30_000
    assert not re.search(r'\son\w+="|\sstyle="', text), "the policy forbids them"


def test_the_facts_that_it_holds(run: RunFolder, page: Path, small: Data) -> None:
    content, record, model = read_page(page)[1], read_record(run), open_model(run)
    assert content["facts"]["run"] == "tests/run/seed-0"
    assert content["temperature"] == record.temperature != 1
    text = page.read_text(encoding="utf-8")
    accuracy = record.scores["test"]["accuracy"]
    assert f"accuracy {100 * accuracy.value:.1f}\u00a0%" in text
    assert "on 60 test images" in text
    assert "on 64 validation and random images" in text
    for each in content["sets"]:
        images = calibration_images(run, record)
        guarantees = guarantees_of(Wanted(each["coverage"]), images, content["classes"])
        assert guarantees.sets is not None
        assert each["threshold"] == guarantees.sets.thresholds[0]
        assert each["said"].startswith("Sets hold the true class of at least")
    assert [each["share"] for each in content["sets"]] == ["90 %", "95 %"]
    assert small.test is not None
    images = content["images"]
    assert images is None, "the run's data are not those of its configuration"
    pattern = (torch.arange(64) * 7919 % 256 / 255).view(1, 1, 8, 8)
    assert np.allclose(content["pattern"], model(pattern)[0].detach(), atol=1e-5)


@pytest.fixture
def digits_run(tmp_path: Path) -> sl.Run:
    return sl.train(
        {"mlp": {"widths": [16]}},
        {"digits": {"subset": 300}},
        out=tmp_path / "runs",
        epochs=5,
        lr=0.01,
        precision="float32",
        threads=1,
    )


def test_test_images_are_those_of_the_run(digits_run: sl.Run) -> None:
    folder = RunFolder(digits_run.folder)
    content = read_page(export_run(folder, "page").file)[1]
    images, predictions = content["images"], Predictions.of_arrays(folder.load_predictions("test"))
    kinds = [row["kind"] for row in images["rows"]]
    assert len(kinds) == 20
    assert set(kinds) == {"right", "wrong", "unsure"}
    assert images["scale"] == 16
    pixels = np.frombuffer(base64.b64decode(images["content"]), np.uint8).reshape(20, 1, 8, 8)
    logits = digits_run.model()(torch.from_numpy(pixels.copy()) / 16).detach().numpy()
    for row, found in zip(images["rows"], logits):
        assert np.allclose(row["logits"], found, atol=1e-5)
        (place,) = np.flatnonzero(np.abs(predictions.scores - found).max(1) < 1e-4)
        assert row["truth"] == predictions.labels[place]
        assert row["predicted"] == predictions.scores[place].argmax()
        assert (row["kind"] != "right") or row["truth"] == row["predicted"]


def test_the_images_that_are_chosen() -> None:
    labels = np.arange(40) % 4
    sure = np.linspace(1, 5, 40)
    scores = np.zeros((40, 4))
    scores[np.arange(40), labels] = sure
    for wrong in (3, 30):
        scores[wrong] = np.roll(scores[wrong], 1)
    chosen = chosen_images(Predictions(scores, labels, np.arange(40)), 9)
    assert [row for row, kind in chosen.items() if kind == "wrong"] == [30, 3], "the surest first"
    assert [row for row, kind in chosen.items() if kind == "unsure"] == [0, 1, 2]
    right = [row for row, kind in chosen.items() if kind == "right"]
    assert len(right) == 4
    assert sorted(labels[right]) == [0, 1, 2, 3], "of each class in turn"


@pytest.mark.parametrize("light", [False, True])
def test_how_drawings_look(light: bool) -> None:
    """Strokes over 10 of 20 pixels; photographs are no drawings."""
    x = torch.zeros(30, 1, 20, 20)
    x[:, :, 5:15, 8:12] = 1
    found = page_export._drawings(Split(1 - x if light else x, torch.zeros(30, dtype=torch.int64), 1.0))
    assert found == (light, True, 0.5)
    noise = torch.rand(30, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    assert not page_export._drawings(Split(noise, torch.zeros(30, dtype=torch.int64), 1.0)).centred


def test_a_run_without_calibration_or_test_images(small: Data, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    data = replace(small, validation=None, test=None)
    trained = sl.train(net, data, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    found = sl.export(trained, "page", out=tmp_path / "it.html")
    assert found.shown == "random"
    text = found.file.read_text(encoding="utf-8")
    assert "The run has no images that calibrate them" in text
    assert "Probabilities are not calibrated" in text
    assert read_page(found.file)[1]["sets"] == []


def test_other_channels(tmp_path: Path) -> None:
    images = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    data = sl.Data.from_arrays(images, torch.arange(40) % 2)
    run = sl.train("linear", data, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    with pytest.raises(ConfigError, match="takes images of 2 channels, which a page cannot show"):
        sl.export(run, "page")


def test_a_page_is_not_for_predict(page: Path, type_: Any, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    code, out, err = type_("predict", str(page), "a.png")
    assert (code, out) == (2, "")
    assert "is a page for a browser, which predicts there; for predictions here give the run" in err
    assert "(tests/run/seed-0)" in err
    (tmp_path / "other.html").write_text("<p>Hello")
    with pytest.raises(ConfigError, match=r"give the run, or another export"):
        open_predictor(tmp_path / "other.html")
    with pytest.raises(ConfigError, match="is no page that `stresslens export --to page` wrote"):
        read_page(tmp_path / "other.html")


@pytest.mark.slow
def test_names_of_classes_are_text(tmp_path: Path) -> None:
    names = ["</script><b>", "&amp;", "\"'", "ü"]
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    data = sl.Data.from_arrays(images, torch.arange(40) % 4, classes=names)
    run = sl.train("linear", data, out=tmp_path / "runs", epochs=1, precision="float32", threads=1)
    file = sl.export(run, "page").file
    assert read_page(file)[1]["classes"] == names
    assert file.read_text(encoding="utf-8").count("<script") == 3


@needs_chromium
@pytest.mark.slow
def test_a_browser_runs_it_as_it_is(page: Path) -> None:
    """Under its own policy: the answer for empty paper, and the check in the browser."""
    found = dom_of(page)
    assert "This is the answer for empty paper" in found
    assert "Logits of a pattern differ from the run's by at most" in found
    assert found.count('class="bar"') == 10


@needs_chromium
@pytest.mark.slow
def test_a_browser_computes_the_runs_logits(run: RunFolder, page: Path, small: Data, tmp_path: Path) -> None:
    """On 60 test images and 60 random ones."""
    assert small.test is not None
    random = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.cat([small.test.floats(small.test.images[:]), random])
    script = "return given.map(image => stresslens.logits(image));"
    found = torch.tensor(in_chromium(page, script, x.flatten(1).tolist(), tmp_path))
    expected = open_model(run)(x).detach()
    size = torch.maximum(expected.abs(), expected.abs().amax(1, keepdim=True)).clamp_min(1)
    assert len(x) == 120
    assert float(((found - expected).abs() / size).max()) < 1e-4


@needs_chromium
@pytest.mark.slow
def test_a_browsers_occlusion_is_that_of_explain(run: RunFolder, page: Path, tmp_path: Path) -> None:
    """At each pixel and at every third one."""
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    temperature = read_page(page)[1]["temperature"]
    model = nn.Sequential(open_model(run), Divided(temperature))
    y = torch.tensor([4])
    for stride in (1, 3):
        given = {"image": x.flatten().tolist(), "stride": stride}
        script = "return stresslens.occlusion(Float32Array.from(given.image), 4, given.stride, 0.5);"
        found = np.array(in_chromium(page, script, given, tmp_path)).reshape(-(-8 // stride), -1)
        maps = occlusion(model, x, y, None, stride=stride).values[0].numpy()
        assert np.allclose(found, maps[::stride, ::stride], atol=1e-5)


class Divided(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.by


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 30), (17, 33), (8, 8), (5, 6)], ids=str)
def test_a_browser_fits_pictures_as_predict_does(page: Path, size: tuple[int, int], tmp_path: Path) -> None:
    """Cropped, padded and stretched, also a picture that is partly transparent, to within a step."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    pixels[: size[0] // 2, :, 3] = 255
    script = (
        "const planes = stresslens.planes(given.pixels, 1);"
        "const fitted = fit => Array.from(stresslens.fitted(planes, ...given.size, fit));"
        "return ['crop', 'pad', 'stretch'].map(fitted);"
    )
    given = {"pixels": pixels.flatten().tolist(), "size": size}
    for fit, found in zip(("crop", "pad", "stretch"), in_chromium(page, script, given, tmp_path)):
        expected = as_shown(Image.fromarray(pixels, "RGBA"), Frame(1, (8, 8), fit)).pixels[0]
        assert np.abs(np.reshape(found, (8, 8)) * 255 - expected).max() < 1.5, fit


def test_the_version_is_that_of_the_program(page: Path, run: RunFolder) -> None:
    content = read_page(page)[1]
    assert content["facts"]["fingerprint"] == read_json(run.record)["fingerprint"]
    assert f'content="stresslens {sl.__version__}"' in page.read_text(encoding="utf-8")
