"""Prediction sets, answers and thresholds as a user asks for them: of a run, its exports and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import OPTIONS, SMALL
from PIL import Image
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError, StresslensError
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import calibration_rows, pooled, set_aside
from stresslens.core.text import enumeration
from stresslens.evaluation.ensemble_record import EnsembleRecord
from stresslens.evaluation.guarantees import CalibrationImages, calibration_images
from stresslens.evaluation.predictor import CALIBRATION, CALIBRATION_ARRAYS, EXPORT, open_predictor
from stresslens.evaluation.record import read_record
from stresslens.evaluation.run_data import data_of, pooled_positions, undivided_data_of
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.conformal import conformal_quantile

WANTED: dict[str, Any] = {"coverage": 0.9, "sets": "aps"}
ASKED = ("--coverage", "0.9", "--sets", "aps", "--wrong-at-most", "0.3", "--recall", "3=0.8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("out")
    options = OPTIONS | {"epochs": 3}
    aside = sl.train("linear", SMALL, out=out, name="aside", calibration=0.5, **options)
    reused = sl.train("linear", SMALL, out=out, name="reused", **options)
    none = sl.train("linear", {"digits": {"subset": 100, "validation": 0}}, out=out, name="none", **options)
    return {"aside": aside.folder, "reused": reused.folder, "none": none.folder}


@pytest.fixture(scope="module")
def pictures(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    test = data_of(RunFolder(runs["aside"])).test
    assert test is not None
    for k, image in enumerate(test.images[:20]):
        pixels = (image[0].float() * 255 / 16).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
    return folder


def told(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(word) for word in words])
    error = found.exception
    if isinstance(error, StresslensError):
        return error.exit_code, str(error)
    return found.exit_code, found.output


def as_json(*words: object) -> dict[str, Any]:
    found = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert found.exit_code == 0, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def test_images_that_calibrate_choose_nothing(runs: dict[str, Path]) -> None:
    aside, reused = (data_of(RunFolder(runs[name])) for name in ("aside", "reused"))
    assert aside.calibration is not None
    assert aside.validation is not None
    assert reused.validation is not None
    assert reused.calibration is None
    assert len(aside.calibration) + len(aside.validation) == len(reused.validation)
    assert abs(len(aside.calibration) - len(aside.validation)) <= 1
    rows = calibration_rows(reused, 0.5)
    assert sorted(torch.cat(list(rows.values())).tolist()) == list(range(len(reused.validation)))
    assert aside.fingerprint != reused.fingerprint
    assert "calibration" not in (runs["reused"] / "config.yaml").read_text()
    record = read_record(RunFolder(runs["aside"]))
    assert list(record.data.sizes) == ["train", "validation", "calibration", "test"]
    assert record.calibration is not None
    assert record.calibration.n == len(aside.validation), "the temperature is fitted on the others"


def test_validation_images_are_found_among_all_where_some_are_set_aside(runs: dict[str, Path]) -> None:
    folder = RunFolder(runs["aside"])
    whole = undivided_data_of(folder)
    saved = folder.load_predictions("validation")
    images, kept = pooled(whole), data_of(folder).validation
    places = pooled_positions(folder, "validation", whole, images, saved)
    assert kept is not None
    assert isinstance(images.images, torch.Tensor)
    assert isinstance(kept.images, torch.Tensor)
    assert torch.equal(images.images[torch.from_numpy(places)], kept.images)


def test_predict_gives_the_sets_of_the_calibration_images(runs: dict[str, Path], pictures: Path) -> None:
    folder = RunFolder(runs["aside"])
    held_out = Predictions.of_arrays(folder.load_predictions("calibration"))
    fitted = read_record(folder).calibration
    assert fitted is not None
    p = held_out.calibrated(fitted.temperature if fitted.helps else 1.0).probabilities
    threshold = conformal_quantile(1 - p[np.arange(len(p)), held_out.labels], 0.9)
    found = as_json("predict", runs["aside"], pictures, "--coverage", 0.9, "--top", 10)
    for row in found["pictures"]:
        expected = [each["class"] for each in row["predictions"] if 1 - each["probability"] <= threshold]
        assert row["set"] == expected
    assert found["guarantees"][0].startswith(
        f"Sets hold the true class of at least 90 % of images like the {len(p)} calibration images"
    )
    assert not any("Caveat" in sentence for sentence in found["guarantees"])
    page = pictures.parent / "page.html"
    told("predict", runs["aside"], pictures / "00.png", "--coverage", 0.9, "--page", page)
    assert f"set: {enumeration(found['pictures'][0]['set'])}" in page.read_text()
    again = as_json("predict", runs["reused"], pictures, "--coverage", 0.9)
    assert "the same images chose the epoch" in again["guarantees"][-1]


def test_python_gives_the_same_as_the_command_line(runs: dict[str, Path], pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    rows = as_json("predict", runs["aside"], pictures, *ASKED, "--top", 10)["pictures"]
    sets = sl.predict(runs["aside"], files, **WANTED)
    sure = sl.predict(runs["aside"], files, wrong_at_most=0.3)
    found = sl.predict(runs["aside"], files, recall={"3": 0.8})
    assert [sorted(row["set"]) for row in rows] == [
        np.flatnonzero(each).astype(str).tolist() for each in sets
    ]
    assert [row["answers"] for row in rows] == (~np.isnan(sure).any(1)).tolist()
    assert [row["found"] == ["3"] for row in rows] == found[:, 0].tolist()
    assert {row["answers"] for row in rows} == {True, False}
    alone = sl.predict(runs["aside"], files[7:8], **WANTED)
    assert np.array_equal(alone[0], sets[7]), "the draw is that of the image, not of its position"


GRAPHS = [pytest.param(to, marks=pytest.mark.slow) for to in ("onnx", "torch")]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["safetensors", *GRAPHS])
def test_an_export_gives_the_same(runs: dict[str, Path], pictures: Path, tmp_path: Path, to: str) -> None:
    name = {"onnx": "m.onnx", "torch": "m.pt2", "safetensors": "m"}[to]
    file = sl.export(runs["aside"], to, out=tmp_path / name).file
    for asked in (ASKED, ("--coverage", "0.8", "--sets", "raps", "--by-class")):
        run = as_json("predict", runs["aside"], pictures, *asked)
        exported = as_json("predict", file, pictures, *asked, "--trust")
        assert exported["guarantees"] == run["guarantees"]
        for one, other in zip(run["pictures"], exported["pictures"], strict=True):
            assert {k: one.get(k) for k in ("set", "answers", "found")} == {
                k: other.get(k) for k in ("set", "answers", "found")
            }


def test_an_export_without_calibration_images_predicts_and_says_what_it_lacks(
    runs: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    old = sl.export(runs["aside"], "safetensors", out=tmp_path / "old").file
    (old / CALIBRATION).unlink()
    none = sl.export(runs["none"], "safetensors", out=tmp_path / "none").file
    for file in (old, none):
        assert len(as_json("predict", file, pictures)["pictures"]) == 20
        code, said = told("predict", file, pictures, "--coverage", 0.9)
        assert code == 2
        assert "holds no calibration images" in said
        assert "export the run again" in said
    damaged = sl.export(runs["aside"], "safetensors", out=tmp_path / "damaged").file
    (damaged / CALIBRATION).write_bytes(b"PK" + bytes(50))
    code, said = told("predict", damaged, pictures, "--coverage", 0.9)
    assert (code, "cannot be read" in said) == (2, True)
    assert (damaged / EXPORT).is_file()


@pytest.mark.slow
def test_a_graph_without_calibration_images_says_so(
    runs: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    file = sl.export(runs["none"], "onnx", out=tmp_path / "none.onnx").file
    assert len(as_json("predict", file, pictures)["pictures"]) == 20
    code, said = told("predict", file, pictures, "--wrong-at-most", 0.1)
    assert (code, "holds no calibration images" in said) == (2, True)


def test_calibration_images_are_written_and_read_alike(runs: dict[str, Path]) -> None:
    folder = RunFolder(runs["reused"])
    images = calibration_images(folder, read_record(folder))
    again = CalibrationImages.of_content(images.content(), CALIBRATION_ARRAYS)
    assert (again.source, again.caveat) == (images.source, images.caveat)
    for name, values in vars(again.scores).items():
        assert np.array_equal(values, getattr(images.scores, name))
    assert open_predictor(runs["reused"]).calibration().source == "validation images"


def test_the_caveat_names_what_validation_images_chose(runs: dict[str, Path]) -> None:
    folder = RunFolder(runs["reused"])

    def caveat(ensemble: EnsembleRecord | None = None, helps: bool = False, **training: Any) -> str:
        record = read_record(folder)
        record.training = record.training.model_copy(update=training)
        assert record.calibration is not None
        record.calibration = record.calibration.model_copy(update={"helps": helps})
        record.ensemble = ensemble
        return calibration_images(folder, record).caveat

    assert caveat(select="accuracy").startswith("the same images chose the epoch, so it may hold")
    assert caveat(select="last") == caveat(select="last", epochs=0, chosen_epoch=0) == ""
    members = caveat(EnsembleRecord(), helps=True, select="last", epochs=0, chosen_epoch=0)
    assert members.startswith("the same images chose the epochs of its members and the temperature, so")


def test_evaluate_scores_sets_answers_and_recall(runs: dict[str, Path]) -> None:
    found = as_json("evaluate", runs["aside"], *ASKED)["guarantees"]
    assert next(iter(found["sets"])) == "APS"
    assert set(found["sets"]) == {f"{s}{c}" for s in ("LAC", "APS", "RAPS") for c in ("", " by class")}
    for scores in found["sets"].values():
        n = sum(scores["sizes"].values())
        assert n == scores["coverage"]["n"] == 360
        assert scores["empty"] == scores["sizes"].get("0", 0)
        assert scores["coverage"]["low"] <= scores["coverage"]["value"] <= scores["coverage"]["high"]
    assert 0.8 < found["sets"]["APS"]["coverage"]["value"] < 0.98
    test = Predictions.of_arrays(RunFolder(runs["aside"]).load_predictions("test"))
    of_three, at = test.labels == 3, found["recall"]["3"]
    fitted = read_record(RunFolder(runs["aside"])).calibration
    assert fitted is not None
    p = test.calibrated(fitted.temperature if fitted.helps else 1.0).probabilities[:, 3]
    assert at["recall"]["value"] == pytest.approx((p[of_three] >= at["threshold"]).mean())
    assert at["precision"]["value"] == pytest.approx(of_three[p >= at["threshold"]].mean())
    assert at["specificity"]["value"] == pytest.approx((p[~of_three] < at["threshold"]).mean())
    assert found["answers"]["wrong"]["value"] < 0.3
    code, said = told("evaluate", runs["aside"], *ASKED)
    assert code == 0
    for words in ("sets at 90 % on 360 images", "of these wrong, %", "specificity", "calibration images"):
        assert words in said
    scores = sl.evaluate(runs["aside"], coverage=0.9, wrong_at_most=0.3, recall={"3": 0.8})
    assert scores["coverage_aps"].value == found["sets"]["APS"]["coverage"]["value"]
    assert scores["wrong_answers"].n == found["answers"]["wrong"]["n"]
    assert scores["recall_of_3"].value == at["recall"]["value"]


@pytest.mark.breadth(7)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--coverage", "0"], "expected a share between 0 and 1, such as 0.95"),
        (["--coverage", "1"], "expected a share between 0 and 1"),
        (["--coverage", "1.5"], "expected a share between 0 and 1"),
        (["--coverage", "nan"], "expected a share between 0 and 1"),
        (["--coverage", "0.9", "--sets", "lack"], "did you mean 'lac'?"),
        (["--sets", "aps"], "--sets belongs to --coverage"),
        (["--by-class"], "--by-class belongs to --coverage"),
        (["--wrong-at-most", "-0.1"], "such as 0.01"),
        (["--recall", "3"], "expected CLASS=SHARE, for example malignant=0.95"),
        (["--recall", "=0.9"], "expected CLASS=SHARE"),
        (["--recall", "3=1"], "--recall 3=1.0: expected a share between 0 and 1"),
        (["--recall", "3=0.9", "--recall", "3=0.8"], "3 is given twice"),
        (["--recall", "three=0.9"], "no class has this name"),
        (["--coverage", "0.9", "--tta", "flip"], "leave out --tta"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_cannot_be_asked_for_is_refused(
    command: str, words: list[str], said: str, runs: dict[str, Path], pictures: Path
) -> None:
    code, message = told(command, runs["aside"], *([pictures] if command == "predict" else []), *words)
    assert code == 2
    assert said in message


def test_runs_and_splits_that_cannot_calibrate_are_refused(runs: dict[str, Path], pictures: Path) -> None:
    for words in (("predict", runs["none"], pictures), ("evaluate", runs["none"])):
        code, said = told(*words, "--coverage", 0.9)
        assert code == 2
        assert "has no validation images, and nothing else can calibrate sets and thresholds" in said
    assert (
        "leave out --prompts"
        in told("predict", runs["aside"], pictures, "--prompts", "a", "--recall", "3=0.9")[1]
    )
    for name, split in (("aside", "calibration"), ("reused", "validation"), ("aside", "train")):
        code, said = told("evaluate", runs[name], "--coverage", 0.9, "--split", split)
        assert (code, "score them on test" in said) == (2, True)
    assert told("evaluate", runs["aside"], "--calibrate", "x.csv")[1].endswith("leave it out")


def test_too_few_images_are_told(runs: dict[str, Path], pictures: Path) -> None:
    asked = ("--coverage", 0.999, "--wrong-at-most", 0.001, "--recall", "3=0.99")
    found = as_json("predict", runs["aside"], pictures, *asked)
    said = " ".join(found["guarantees"])
    assert "99.9 % needs at least 999 calibration images" in said
    assert "No answers: no threshold of the confidence holds 0.1 %" in said
    assert "needs at least 299 calibration images of it" in said
    assert all(len(row["set"]) == 10 and not row["answers"] and row["found"] for row in found["pictures"])
    said = as_json("predict", runs["aside"], pictures, "--coverage", 0.99, "--by-class")["guarantees"][1]
    assert said.startswith(
        "10 classes are in every set: 99 % needs at least 99 calibration images of a class"
    )


def write_file(path: Path, n: int, seed: int, first: int = 0) -> Path:
    random = np.random.default_rng(seed)
    p = random.dirichlet([1, 1, 1], n)
    labels = (random.random((n, 1)) > p.cumsum(1)).sum(1)
    rows = [
        f"{first + i}.png,{'abc'[k]}," + ",".join(map(str, row)) for i, (k, row) in enumerate(zip(labels, p))
    ]
    path.write_text("file,label,prob_a,prob_b,prob_c\n" + "\n".join(rows) + "\n")
    return path


def test_files_of_predictions(tmp_path: Path) -> None:
    scored, other = write_file(tmp_path / "t.csv", 300, 0), write_file(tmp_path / "c.csv", 200, 1, 1000)
    out = ("--out", tmp_path / "runs")
    found = as_json("evaluate", scored, "--coverage", 0.9, "--calibrate", other, "--recall", "b=0.8", *out)
    assert 0.85 < found["guarantees"]["sets"]["LAC"]["coverage"]["value"] < 0.96
    assert "the 200 images of c.csv that" in found["guarantees"]["sentences"][0]
    assert "needs --calibrate" in told("evaluate", scored, "--coverage", 0.9, *out)[1]
    assert "belongs to --coverage" in told("evaluate", scored, "--calibrate", other, *out)[1]
    code, said = told("evaluate", scored, "--coverage", 0.9, "--calibrate", scored, *out)
    assert code == 3
    assert said.startswith(f"300 images are in {scored} and in {scored}")
    classes = tmp_path / "k.csv"
    classes.write_text("file,label,prob_a,prob_b\nx.png,a,0.4,0.6\n")
    assert (
        "has the classes a and b, and"
        in told("evaluate", scored, "--coverage", 0.9, "--calibrate", classes, *out)[1]
    )
    answers = tmp_path / "answers.csv"
    answers.write_text("file,label,prediction\nx.png,a,a\ny.png,b,c\nz.png,c,c\n")
    code, said = told("evaluate", scored, "--coverage", 0.9, "--calibrate", answers, *out)
    assert (code, "answers and no scores" in said) == (2, True)
    one = tmp_path / "one.csv"
    one.write_text("file,label,prob_a,prob_b,prob_c\nx.png,a,0.4,0.5,0.1\n")
    few = as_json("evaluate", scored, "--coverage", 0.9, "--calibrate", one, *out)["guarantees"]
    assert few["sets"]["LAC"]["size"]["value"] == 3
    assert "needs at least 9 calibration images" in few["sentences"][1]


def test_sets_of_arrays_are_checked() -> None:
    p = np.full((4, 2), 0.5)
    labels = [0, 1, 0, 1]
    assert sl.prediction_sets(p, labels, p, coverage=0.5).shape == (4, 2)
    assert sl.prediction_sets(p[:0], np.zeros(0, int), p, coverage=0.5).all()
    missing = np.where([[True], [False], [False], [False]], np.nan, p)
    assert sl.prediction_sets(missing, labels, missing, coverage=0.5)[0].all()
    for given, said in (
        ((p, labels[:3], p), "expected a whole number for each of 4 calibration images"),
        ((p, [0, 1, 2, 0], p), "labels run from 0 to 2; 2 classes count from 0"),
        ((p, labels, np.full((1, 3), 1 / 3)), "calibration has 2 classes, and probabilities 3"),
        ((2 * p, labels, p), "calibration: rows have negative values or do not add up to 1"),
        ((p[:, :1], labels, p), "two classes"),
        (("words", labels, p), "something other than numbers"),
    ):
        with pytest.raises(DataError, match=said):
            sl.prediction_sets(*given)  # type: ignore[arg-type]
    for options in (
        {"coverage": 1.5},
        {"sets": "lacs"},
        {"sets": "raps", "penalty": -1.0},
        {"sets": "raps", "rank": -1},
        {"penalty": 0.1},
        {"sets": "aps", "rank": 0},
    ):
        with pytest.raises(ConfigError):
            sl.prediction_sets(p, labels, p, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"stresslens\.prediction_sets"):
        sl.predict(torch.nn.Flatten(), np.zeros((1, 1, 2, 2)), coverage=0.9)


def test_images_are_set_aside_by_group_and_not_where_none_are_left() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 4)
    images = random.integers(0, 255, (400, 1, 4, 4), dtype=np.uint8)
    data = Data.from_arrays(images, groups % 2, validation=0.4, test=0.2, groups=groups)
    found = set_aside(data, 0.5)
    assert found.calibration is not None
    assert found.validation is not None
    assert not set(found.calibration.columns["group"]) & set(found.validation.columns["group"])
    assert set_aside(data, None) is data
    for asked in (160, 1000):
        with pytest.raises(ConfigError, match="some must be left to choose the epoch"):
            set_aside(data, asked)
    plain = Data.from_arrays(images, groups % 2, validation=0, test=0.2)
    with pytest.raises(ConfigError, match="has no validation images"):
        set_aside(plain, 0.5)
