"""Explaining a run: its files, what is not done twice, one's own pictures, the verb, one call from
Python, and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry, study_file
from stresslens.config.schema import Explain
from stresslens.core.colormaps import SIGNED, UNSIGNED, bar, coloured, limit_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.explanation import maps
from stresslens.explanation.maps import explain_config, explain_run
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

EXPLAINERS: list[Any] = [{"occlusion": {"size": 3, "stride": 2}}, "saliency"]


def explained(task: Task, asked: Any) -> dict[str, Any]:
    return succeeded(stages.carry_out(replace(task, config=replace(task.config, explain=asked))))


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        file.parent.name: read_json(file) for file in sorted((folder / "explanations").glob("*/result.json"))
    }


def test_a_stage_leaves_maps_pictures_and_what_they_are_worth(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn")
    record = explained(task, EXPLAINERS)
    assert record.status == "finished"
    assert record.reads_of_test == 3
    found = results(task.folder)
    assert [name.rpartition("-")[0] for name in found] == ["occlusion", "saliency"]
    for name, result in found.items():
        folder = task.folder / "explanations" / name
        assert [image["truth"] for image in result["images"]] == list(range(10))
        assert np.load(folder / "maps.npz")["maps"].shape == (10, 8, 8)
        assert set(result["worth"]["checks"]) == {
            "deletion",
            "insertion",
            "infidelity",
            "sensitivity",
            "randomisation",
            "shuffled pixels",
            "another image",
            "another class",
            "shuffled weights",
            "moved",
        }
        assert all(check["n"] == 10 for check in result["worth"]["checks"].values())
        assert {name: len(values) for name, values in result["worth"]["each"].items()} == dict.fromkeys(
            result["worth"]["checks"], 10
        )
        for image in result["images"]:
            with Image.open(folder / f"{image['index']:05d}-map.png") as picture:
                assert picture.size == (112, 112)
        figure = (folder / "figure.svg").read_text()
        assert figure.count("<image") == 21
        assert figure.count("<text") == 22
        assert result["unit"] in figure or "logit&#x27;s gradient" in figure
    arrays = np.load(next((task.folder / "explanations").glob("occlusion-*/maps.npz")))
    predictions = RunFolder(task.folder).load_predictions("test")
    assert arrays["answers"].tolist() == predictions["scores"][arrays["index"]].argmax(1).tolist()


@pytest.mark.slow
def test_a_run_in_float64_is_explained_and_seen(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn", precision="float64")
    everything = [name for name in registry.names("explainers") if name != "rollout"]
    views: list[Any] = [
        {"class_image": {"steps": 2}},
        {"impostor": {"steps": 2}},
        "neighbours",
        "embedding",
        "activations",
    ]
    record = stages.carry_out(
        replace(task, config=replace(task.config, explain=Explain(everything, images=2), views=views))
    )
    assert record.status == "finished"
    assert len(record.explanations) == len(everything)
    assert len(record.views) == len(views)


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_a_new_explainer_joins(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn")
    explained(task, ["saliency"])
    before = next((task.folder / "explanations").glob("saliency-*/maps.npz")).stat().st_mtime_ns
    weights = (task.folder / "model.safetensors").stat().st_mtime_ns
    record = explained(task, Explain(["saliency", "gradcam"]))
    assert record.reads_of_test == 3
    assert next((task.folder / "explanations").glob("saliency-*/maps.npz")).stat().st_mtime_ns == before
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == weights
    assert len(results(task.folder)) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("[gradcm]", "no explainer is called 'gradcm'; did you mean 'gradcam'"),
        ("[]", "at least 1 item"),
        ("{images: 3}", "explainers"),
        ("{explainers: [saliency], choose: prettiest}", "choose"),
        ("{explainers: [{occlusion: {sise: 3}}]}", "did you mean 'size'"),
    ],
)
def test_what_cannot_be_explained_is_told_before_anything_is_trained(
    tmp_path: Path, asked: str, message: str
) -> None:
    (tmp_path / "s.yaml").write_text(f"data: digits\nruns: {{a: {{}}}}\nexplain: {asked}\n")
    with pytest.raises(ConfigError, match=message):
        study_file.read_study(tmp_path / "s.yaml")


@pytest.mark.slow
def test_a_split_that_is_not_there_and_images_that_are_not_there(task_of: Callable[..., Task]) -> None:
    task = task_of("simple_cnn")
    without = replace(task.data, validation=None)
    with pytest.raises(ConfigError, match=r"explain\.split: small digits has no validation split here"):
        explained(replace(task, data=without), Explain(["saliency"], split="validation"))
    for asked, message in (
        (Explain(["saliency"], choose=[60]), "there is no image 60"),
        (Explain(["saliency"], target_class=10), r"explain\.target_class: 10 is no class; they are 0 to 9"),
        (Explain(["saliency"], target_class="truth"), r"explain\.target_class: no class is called 'truth'"),
        (Explain([{"occlusion": {"size": 9}}]), "a window of 9×9 is larger than the image"),
        (Explain([{"gradcam": {"layer": "x"}}]), "valid: net.0, net.1"),
    ):
        with pytest.raises(ConfigError, match=message):
            explained(task, asked)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("explained")
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
        "runs": {"a": {}, "b": {"train.lr": 0.01}},
        "explain": {"explainers": EXPLAINERS, "images": 4},
    }
    return pipeline.run(study_file.expand_study(values, [], name="s", base=home), out=home)


@pytest.mark.slow
def test_the_pages_show_the_same_images_side_by_side(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert "Explanations" in page
    assert "occlusion (size 3, stride 2)</bdi>, model by model" in page
    section = page[page.index('id="explained"') :]
    section = section[: section.index("</section>")]
    assert section.count('title="deletion ') == 2 * 2 * 4
    assert section.count("<tbody>") == 4  # two explainers: maps, and their worth
    own = (study / "a" / "seed-0" / "report.html").read_text()
    assert "Explanations" in own
    assert own.count("data:image/png;base64") >= 3 * 4 + 2


def test_damaged_results_are_left_out_of_the_page(study: Path) -> None:
    from stresslens.report.explanations import read_explanations
    from stresslens.report.load import read_run

    run = read_run(RunFolder(study / "b" / "seed-0"))
    assert len(read_explanations(run)) == 2
    first, second = sorted((study / "b" / "seed-0" / "explanations").glob("*/result.json"))
    kept = first.read_text(), (second.parent / "maps.npz").read_bytes()
    first.write_text("{")
    (second.parent / "maps.npz").write_bytes(b"x")
    assert read_explanations(run) == []
    first.write_text(kept[0])
    (second.parent / "maps.npz").write_bytes(kept[1])


def test_ones_own_pictures(study: Path, tmp_path: Path) -> None:
    run = study / "a" / "seed-0"
    Image.fromarray(np.full((20, 20), 200, np.uint8)).save(tmp_path / "mine.png")
    reads = read_json(run / "record.json")["reads_of_test"]
    found = explain_run(RunFolder(run), Explain(["saliency"]), [tmp_path / "mine.png"], base=tmp_path)
    (image,) = found[0].images
    assert (image.truth, image.source) == (None, str(tmp_path / "mine.png"))
    assert image.answer == image.predicted
    assert found[0].split == "pictures"
    assert read_json(run / "record.json")["reads_of_test"] == reads
    (tmp_path / "text.png").write_text("no picture")
    for file, message in ((tmp_path / "text.png", r"text\.png"), (tmp_path / "absent.png", "No such file")):
        with pytest.raises(DataError, match=message):
            explain_run(RunFolder(run), Explain(["saliency"]), [file], base=tmp_path)
    with pytest.raises(ConfigError, match="is no run's folder"):
        explain_run(RunFolder(tmp_path), Explain(["saliency"]), base=tmp_path)


def test_another_run_may_choose_the_images(study: Path, tmp_path: Path) -> None:
    first, second = (RunFolder(study / name / "seed-0") for name in "ab")
    asked = Explain(["saliency"], images=3, choose="most_confident_wrong", check=False)
    own, same = (explain_run(second, asked, base=tmp_path, images_from=by)[0].images for by in (None, first))
    chosen = explain_run(first, asked, base=tmp_path)[0].images
    assert (
        [image.index for image in same] == [image.index for image in chosen] != [image.index for image in own]
    )
    other = RunFolder(tmp_path / "other")
    arrays = first.load_predictions("test")
    (tmp_path / "other" / "predictions").mkdir(parents=True)
    np.savez(other.predictions("test"), **{**arrays, "labels": arrays["labels"][::-1]})
    with pytest.raises(ConfigError, match="was tested on other images; name a run on the same data"):
        explain_run(second, asked, base=tmp_path, images_from=other)


def test_the_verb(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from stresslens.cli.main import app

    run = str(study / "a" / "seed-0")
    typed = CliRunner().invoke(
        app, ["explain", run, "--explainer", "gradcam", "--images", "2", "--choose", "random", "--json"]
    )
    assert typed.exit_code == 0
    (result,) = json.loads(typed.stdout)
    assert len(result["images"]) == 2
    shown = CliRunner().invoke(
        app, ["explain", run, "--explainer", "gradcam", "--images", "2", "--choose", "random"]
    )
    assert "maps of 2 images (test)" in shown.stdout
    assert "randomisation" in shown.stdout
    assert "gradcam" in (study / "a" / "seed-0" / "report.html").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"explainers": ["saliency"], "target_class": -1},
            r"target_class: input should be 'predicted' or 'label', or .*, got -1",
        ),
        (
            {"explainers": ["saliency"], "images": 0},
            "images: input should be greater than or equal to 1, or 'auto', got 0",
        ),
        ({"explainers": ["saliency"], "image": 1}, "image: unexpected keyword argument, got 1"),
    ],
)
def test_settings_that_are_wrong(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explain_config(values)


# --- from Python --------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def test_one_call_from_python() -> None:
    model, x = net().train(), torch.rand(5, 1, 8, 8)
    found = sl.explain(model, x, {"gradcam": {"layer": "0"}}, check=True)
    assert found.maps.shape == (5, 8, 8)
    assert found.answers.tolist() == model(x).argmax(1).tolist()
    assert model.training
    assert found.quality is not None
    assert "deletion" in found.quality["checks"]
    asked = sl.explain(model, (x * 255).round().to(torch.uint8), "saliency", answers=[1] * 5)
    assert asked.answers.tolist() == [1] * 5
    assert not asked.signed
    assert asked.quality is None


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.rand(2, 1, 8, 8) + 1, {}, r"\[0, 1\]"),
        (torch.rand(2, 8, 8), {}, "shape"),
        (torch.rand(2, 3, 8, 8), {}, "cannot take images of shape"),
        (torch.rand(2, 1, 8, 8), {"answers": [1]}, "2 images but 1 label"),
        (torch.rand(2, 1, 8, 8), {"answers": [1, 10]}, "10"),
        (torch.rand(2, 1, 8, 8), {"explainer": "rollout"}, "no attention layers"),
    ],
)
def test_what_python_refuses(images: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.StresslensError, match=message):
        sl.explain(net(), images, **options)


def test_an_explainer_of_ones_own_that_returns_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from stresslens.core.maps import Maps\n"
        "def number(model, x):\n    return 3\n"
        "def small(model, x):\n    return Maps(x[:, 0, :2], False, 'x')\n"
        "def nan(model, x):\n    return Maps(x[:, 0] / 0 * 0, False, 'x')\n"
        "def image(model, x):\n    return Maps(x[:, 0], False, 'brightness')\n"
    )
    x = torch.rand(2, 1, 8, 8)
    for name, message in (
        ("number", "returned a int; expected Maps"),
        ("small", r"shape \(2, 2, 8\)"),
        ("nan", "NaN or infinity"),
    ):
        with pytest.raises(ConfigError, match=message):
            sl.explain(net(), x, f"mine.py:{name}")
    assert torch.equal(torch.from_numpy(sl.explain(net(), x, "mine.py:image").maps), x[:, 0])


# --- colours ------------------------------------------------------------------------------------------------


def test_colours_of_a_scale() -> None:
    assert coloured(np.array([-1.0, 0.0, 1.0]), 1.0, signed=True).tolist() == [
        list(SIGNED[k]) for k in (0, 2, 4)
    ]
    assert coloured(np.array([0.0, 2.0, 9.0]), 2.0, signed=False).tolist() == [
        list(UNSIGNED[k]) for k in (0, 4, 4)
    ]
    assert coloured(np.zeros(2), 0.0, signed=True).tolist() == [list(SIGNED[2])] * 2
    assert limit_of(np.array([0.0, -3.0])) == pytest.approx(np.quantile([0, 3], 0.995))
    assert limit_of(np.array([0.0] * 999 + [5.0])) == 5.0
    assert bar(1.0, signed=True).shape == (10, 96, 3)
    assert maps.limit_of(np.zeros(3)) == 0.0
