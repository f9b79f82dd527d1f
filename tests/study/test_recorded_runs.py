"""Predictions of other programs as runs: scored, compared, reported, and refused where a model is needed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.neighbors import KNeighborsClassifier

import stresslens as sl
from stresslens.config.recorded_study import variant_and_seed

Type = Callable[..., tuple[int, str, str]]
LABELS = load_digits().target[1200:]


def write(path: Path, probabilities: NDArray[np.float64], seed: int = 0) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "half", *(f"prob_{k}" for k in range(probabilities.shape[1]))])
        for k in np.random.default_rng(seed).permutation(len(LABELS)):
            table.writerow([f"{k}.png", LABELS[k], "early" if k < 300 else "late", *probabilities[k]])


@pytest.fixture(scope="module")
def probabilities() -> dict[str, NDArray[np.float64]]:
    images, labels = load_digits(return_X_y=True)
    found = {}
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(1200)[:600]
        logistic = LogisticRegression(max_iter=1000).fit(images[rows] / 16, labels[rows])
        found[f"logreg-seed{seed}"] = logistic.predict_proba(images[1200:] / 16)
        neighbours = KNeighborsClassifier(5).fit(images[rows] / 16, labels[rows])
        found[f"knn-seed{seed}"] = neighbours.predict_proba(images[1200:] / 16)
    return found


@pytest.fixture
def files(
    probabilities: dict[str, NDArray[np.float64]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for number, (name, values) in enumerate(probabilities.items()):
        write(tmp_path / f"{name}.csv", values, number)
    return [f"{name}.csv" for name in sorted(probabilities, reverse=True)]


def test_the_scores_are_those_of_scikit_learn(
    type_: Type, files: list[str], probabilities: dict[str, NDArray[np.float64]]
) -> None:
    code, out, err = type_("evaluate", "logreg-seed0.csv", "--json")
    assert code == 0
    assert "597 images, 10 classes; the scores are probabilities" in err
    found, p = json.loads(out)["scores"], probabilities["logreg-seed0"]
    answers = p.argmax(1)
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(LABELS, answers))
    assert found["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(LABELS, answers))
    assert found["cross_entropy"]["value"] == pytest.approx(log_loss(LABELS, p), rel=1e-5)
    (page,) = Path("runs").glob("predictions-*/logreg/seed-0/report.html")
    assert "Each class" in page.read_text()
    code, _, err = type_("evaluate", "logreg-seed0.csv", "--fail-under", "accuracy=0.99")
    assert code == 5


def test_variants_over_seeds_are_compared_with_one_command(type_: Type, files: list[str]) -> None:
    code, out, _ = type_("compare", *files, "--json")
    found = json.loads(out)
    (pair,) = found["contrasts"]
    assert (found["kind"], pair["a"], pair["b"]) == ("recipe", "logreg", "knn")
    assert pair["difference"]["value"] > 0
    assert "3 seeds, 597 images" in pair["verdict"]
    assert code == 0
    code, out, _ = type_("compare", *reversed(files))
    assert code == (5 if pair["p_holm"] < 0.05 else 0)
    (study,) = Path("runs").glob("predictions-*")
    assert json.loads((study / "study.json").read_text())["runs"] == ["logreg", "knn"]
    assert "logreg" in (study / "report.html").read_text()
    code, out, _ = type_("compare", str(study))
    assert code == 0
    assert pair["verdict"] in out


@pytest.mark.slow
def test_from_python_and_without_a_model(files: list[str]) -> None:
    compared = sl.compare(*files)
    assert compared["contrasts"][0]["b"] == "knn"
    run = sl.open(next(Path("runs").glob("predictions-*/knn/seed-0")))
    assert isinstance(run, sl.Run)
    assert run.scores()["accuracy"].n == 597
    assert [each.by for each in run.results().slices] == ["half"]
    for call in (lambda: sl.attack(run, 0.1), lambda: run.model()):
        with pytest.raises(sl.ConfigError, match=r"has predictions that were read from .*knn-seed0\.csv"):
            call()


@pytest.mark.slow
def test_another_split_of_the_same_images_is_kept_beside(type_: Type, files: list[str]) -> None:
    type_("evaluate", files[0])
    assert type_("evaluate", files[0], "--split", "validation")[0] == 0
    (record,) = Path("runs").rglob("record.json")
    found = json.loads(record.read_text())
    assert set(found["scores"]) == set(found["data"]["sizes"]) == {"test", "validation"}
    assert found["reads_of_test"] == 1


def test_nothing_is_written_before_the_options_are_right(type_: Type, files: list[str]) -> None:
    code, _, err = type_("compare", *files[:2], "--without-copies", "--metric", "robust@0.1")
    assert code == 2
    assert "--without-copies is for the accuracy alone" in err
    assert not Path("runs").exists()


def test_what_is_refused(type_: Type, files: list[str], tmp_path: Path) -> None:
    code, _, err = type_("compare", files[0], "runs")
    assert code == 2
    assert "compare files of predictions with files" in err
    code, _, err = type_("evaluate", files[0], "--tta", "flip")
    assert code == 2
    assert "--tta needs a model" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / files[0]).write_text((tmp_path / files[0]).read_text())
    code, _, err = type_("compare", files[0], f"other/{files[0]}")
    assert code == 2
    assert "two files are called" in err
    code, _, err = type_("evaluate", files[0], "--columns", "label")
    assert "expected pairs such as label=y" in err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet-seed3", ("resnet", 3)),
        ("resnet_seed_3", ("resnet", 3)),
        ("a b seed=12", ("a_b", 12)),
        ("..", ("_", 0)),
        ("resnet50", ("resnet50", 0)),
        ("seed1", ("seed1", 0)),
        ("vit.run2", ("vit", 2)),
    ],
)
def test_names_and_seeds(name: str, expected: tuple[str, int]) -> None:
    assert variant_and_seed(Path(f"{name}.csv")) == expected


STUDY = """# stresslens run models.yaml
study:
  predictions: {knn: knn-seed*.csv, logreg: [logreg-seed0.csv, logreg-seed1.csv, logreg-seed2.csv]}
contrasts:
  neighbours: {pairs: [[logreg, knn]], claim: knn is better than logreg, same_within: 0.2}
"""


@pytest.mark.slow
def test_a_study_file_names_predictions(type_: Type, files: list[str], tmp_path: Path) -> None:
    Path("models.yaml").write_text(STUDY)
    code, out, _ = type_("run", "models.yaml")
    assert code == 0
    (contrast,) = sl.compare("runs/models")["contrasts"]
    assert contrast.pop("same")["verdict"] in out
    assert (contrast["contrast"], contrast["a"], contrast["b"]) == ("neighbours", "logreg", "knn")
    loose = sl.compare(*files)["contrasts"][0]
    assert contrast["difference"] == loose["difference"]
    assert contrast["verdict"] in out
    assert "claim: knn is better than logreg." in out
    assert "knn is better than logreg" in Path("runs/models/report.html").read_text()
    again = sl.run("models.yaml", out=tmp_path / "other")
    (other,) = again.comparison["contrasts"]
    assert other.pop("same")
    assert other == contrast


@pytest.mark.slow
def test_gates_of_a_study_of_predictions(type_: Type, files: list[str]) -> None:
    Path("models.yaml").write_text(STUDY)
    assert type_("run", "models.yaml", "--fail-under", "accuracy=0.1")[0] == 0
    code, _, err = type_("run", "models.yaml", "--fail-under", "accuracy=0.999")
    assert code == 5
    assert "knn/seed-0: accuracy" in err


@pytest.mark.slow
def test_files_without_seeds_in_their_names_are_numbered(
    type_: Type,
    probabilities: dict[str, NDArray[np.float64]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, values in zip(("first", "second"), probabilities.values()):
        write(tmp_path / f"{name}.csv", values)
    Path("s.yaml").write_text("study: {name: both, predictions: {net: [first.csv, second.csv]}}\n")
    assert type_("run", "s.yaml")[0] == 0
    assert sorted(each.name for each in Path("runs/both/net").iterdir()) == ["seed-0", "seed-1"]


def test_folders_may_have_the_seeds(type_: Type, files: list[str], tmp_path: Path) -> None:
    for seed in (3, 1):
        Path(f"net-seed{seed}").mkdir()
        Path(f"knn-seed{seed % 3}.csv").rename(f"net-seed{seed}/preds.csv")
    Path("s.yaml").write_text("study: {name: folders, predictions: {net: net-seed*/preds.csv}}\n")
    assert type_("run", "s.yaml")[0] == 0
    assert sorted(each.name for each in Path("runs/folders/net").iterdir()) == ["seed-1", "seed-3"]


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "study: {predictions: {a: none*.csv}}",
            "s.yaml:1: study.predictions.a: no file is called 'none*.csv'",
        ),
        ("study: {predictions: {a: ['*seed0.csv']}}", "study.predictions.a: two files have the seed 0"),
        ("study: {predictions: {a: [knn-seed0.csv, s.yaml]}}", "s.yaml has no seed in its name, and others"),
        ("study: {predictions: {}}", "s.yaml:1: study.predictions: name a variant"),
        ("study: {colums: {}}", "study.colums: unknown key; did you mean 'columns'"),
        ("study: {predictions: {a: knn-seed0.csv}}\nmodel: mlp", "s.yaml:2: model: means nothing"),
        (
            "study: {predictions: {a: knn-seed0.csv}}\ncontrasts:\n  c: {vary: train.lr}",
            "s.yaml:3: contrasts.c.vary: nothing is known of the settings",
        ),
        (
            "study: {predictions: {a: knn-seed0.csv}}\ncontrasts:\n  c: {pairs: [[a, b]]}",
            "s.yaml:3: contrasts.c.pairs.0: no run is called 'b'",
        ),
    ],
)
def test_mistakes_of_a_study_of_predictions_have_their_line(
    type_: Type, files: list[str], text: str, said: str
) -> None:
    Path("s.yaml").write_text(text)
    code, _, err = type_("run", "s.yaml")
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_what_trains_is_refused_with_predictions(type_: Type, files: list[str]) -> None:
    Path("models.yaml").write_text(STUDY)
    for given in (["train.epochs=3"], ["--seed", "3"], ["--jobs", "2"]):
        code, _, err = type_("run", "models.yaml", *given)
        assert code == 2
        assert "trains nothing" in err
    with pytest.raises(sl.ConfigError, match="trains nothing"):
        sl.run("models.yaml", jobs=2)


@pytest.mark.slow
def test_seeds_of_an_earlier_command_are_not_counted(type_: Type, files: list[str], tmp_path: Path) -> None:
    every = sl.compare(*files)["contrasts"][0]
    fewer = [name for name in files if "seed2" not in name]
    again = sl.compare(*fewer)["contrasts"][0]
    fresh = sl.compare(*fewer, out=tmp_path / "other")["contrasts"][0]
    assert again == fresh != every
