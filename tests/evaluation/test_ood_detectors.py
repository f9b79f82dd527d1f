"""Detectors on named sets: thresholds, intervals, verdicts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.errors import ConfigError, DataError
from stresslens.evaluation.ood import OODDetector
from stresslens.evaluation.ood_detectors import detector_scores, most_fitted, passing, threshold_of
from stresslens.metrics.ranking import auroc, auroc_difference

SMALL = {"digits": {"subset": 200}}


def test_the_threshold_passes_95_percent_of_the_validation_images() -> None:
    assert threshold_of(np.arange(1.0, 101)) == 95
    assert threshold_of(np.arange(1.0, 11)) == 10
    assert threshold_of(np.array([3.0])) == 3


def test_the_share_that_passes_by_hand() -> None:
    validation = np.arange(1.0, 101)
    found = passing(np.array([0.0, 95, 96, 1000]), validation)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert found.n == 4


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_interval_of_the_share_holds(seed: int) -> None:
    """Of normal scores, out of distribution shifted by 2: the true share is known."""
    random = np.random.default_rng(seed)
    truth = norm.cdf(norm.ppf(0.95) - 2)
    found = [passing(2 + random.normal(size=200), random.normal(size=200)) for _ in range(40)]
    held = sum(each.low <= truth <= each.high for each in found)
    assert held >= 34  # at least 38 are expected


def test_the_difference_is_that_of_two_areas_and_paired() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(300) < 120
    one = random.normal(size=300) + positive
    other = one + 0.3 * random.normal(size=300)
    difference, p = auroc_difference(one, other, positive)
    areas = [auroc(np.stack([-s, s], 1), positive.astype(np.int64)).each[1].value for s in (one, other)]
    assert difference.value == pytest.approx(areas[0] - areas[1])
    assert 0 < p < 1
    independent = random.normal(size=300) + positive
    wide, _ = auroc_difference(one, independent, positive)
    assert wide.high - wide.low > 1.5 * (difference.high - difference.low)
    same, p_same = auroc_difference(one, 2 * one + 1, positive)
    assert (same.value, p_same) == (0, 1)


def test_without_validation_images_there_is_no_threshold() -> None:
    found = detector_scores(np.array([0.0, 1, 2, 3]), np.array([False, False, True, True]), None)
    assert found.auroc.value == 1
    assert found.fpr95 is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    out = tmp_path_factory.mktemp("ood")
    return sl.train(
        {"mlp": {"widths": [16]}}, SMALL, out=out, epochs=3, threads=1, precision="float32", progress=False
    )


def evaluated(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def pictures(folder: Path, n: int, size: int = 20) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for k in range(n):
        Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{k}.png")
    return folder


def test_sets_and_detectors_by_name(run: sl.Run, tmp_path: Path) -> None:
    folder = str(run.folder)
    before = json.loads((run.folder / "record.json").read_text())["reads_of_test"]
    colour = pictures(tmp_path / "colour", 12)
    said = evaluated(folder, "--ood", "uniform_noise", "--ood", str(colour), "--ood", "blurred")
    assert "mahalanobis" in said
    assert "12 of 12 images" in said
    record = json.loads((run.folder / "record.json").read_text())
    assert record["reads_of_test"] == before + 2  # the scores, and the detectors
    names = {"energy", "knn", "mahalanobis", "max_logit", "max_softmax", "predict", "vim"}
    assert set(record["ood"]["sets"]) == {"uniform_noise", str(colour), "blurred"}
    assert set(record["ood"]["sets"]["blurred"]["detectors"]) == names
    noise = record["ood"]["sets"]["uniform_noise"]["detectors"]["mahalanobis"]
    assert noise["auroc"]["value"] > 0.8
    page = (run.folder / "report.html").read_text()
    assert 'id="ood"' in page
    again = json.loads(
        evaluated(
            folder,
            "--ood",
            "gaussian_noise",
            "--detector",
            "{knn: {k: 3}}",
            "--json",
            "--split",
            "validation",
        )
    )
    (only,) = again["ood"]["sets"].values()
    assert list(only["detectors"]) == ['{"knn": {"k": 3}}']
    assert only["verdict"].endswith("alone was scored")
    kept = again["ood"]["other_split"]
    assert kept == json.loads(json.dumps(record["ood"]))
    page = (run.folder / "report.html").read_text()
    assert page.count('id="ood"') == 1
    assert "test images. AUPR" in page
    assert "validation images. AUPR" in page
    evaluated(folder, "--ood", "gaussian_noise", "--detector", "energy")
    ood = json.loads((run.folder / "record.json").read_text())["ood"]
    assert set(ood["sets"]) == {"uniform_noise", str(colour), "blurred", "gaussian_noise"}
    assert (ood["other_split"]["split"], set(ood["other_split"]["sets"])) == (
        "validation",
        {"gaussian_noise"},
    )
    assert "other_split" not in ood["other_split"]


@pytest.mark.parametrize(("width", "most"), [(16, 10_000), (2**25, 512), (2**13, 4096)])
def test_fewer_images_of_large_features_are_fitted(width: int, most: int) -> None:
    assert most_fitted(width) == most


def test_too_little_memory_refuses_the_detector_alone(run: sl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(path: Path) -> OODDetector:
        raise MemoryError

    monkeypatch.setattr(OODDetector, "load", greedy)
    found = run.detect_ood("uniform_noise", detectors=["predict", "energy"]).found
    assert list(found.sets["uniform_noise"].detectors) == ["energy"]
    assert "too many for the memory" in found.refused["predict"]


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--ood", "sevenhn"], "synthetic sets are"),
        (["--ood", "digits"], "the run's own"),
        (["--ood", "uniform_noise", "--detector", "enery"], "energy"),
        (["--detector", "energy"], "name a set of images"),
        (["--ood", "blurred", "--find-slices"], "give one of them"),
        (["--ood", "blurred", "--split", "train"], "not with those of training"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(run: sl.Run, arguments: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        evaluated(str(run.folder), *arguments)


def test_empty_folders_and_few_images_are_a_sentence(run: sl.Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        evaluated(str(run.folder), "--ood", str(tmp_path / "empty"))
    few = pictures(tmp_path / "few", 3)
    (few / "broken.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"3 images can be read; at least 10 are needed; 1 file cannot be read"
    ):
        evaluated(str(run.folder), "--ood", str(few))


def test_a_model_without_a_last_linear_layer_refuses_vim_alone(tmp_path: Path) -> None:
    neighbours = sl.train("knn", SMALL, out=tmp_path, progress=False)
    said = evaluated(str(neighbours.folder), "--ood", "uniform_noise")
    assert "vim: not possible: it needs a last linear layer" in said
    record = json.loads((neighbours.folder / "record.json").read_text())
    assert "max_softmax" in record["ood"]["sets"]["uniform_noise"]["detectors"]
