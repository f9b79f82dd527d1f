"""Estimators beside networks: fitted once, compared on the same images, shown in the same report,
refused where they cannot go."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import stresslens as sl
from stresslens.cli.attack import attack
from stresslens.config import study_file
from stresslens.config.schema import Corruptions
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import UnreadableRun, read_json, write_json
from stresslens.core.gradient_free import NoGradient
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.classify_files import Classifier
from stresslens.evaluation.estimator import Estimated
from stresslens.evaluation.predictor import open_predictor
from stresslens.evaluation.saved_model import open_model
from stresslens.robustness.attack_run import attack_run, robustness_config
from stresslens.study import pipeline, stages, train_stage
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

STUDY: dict[str, Any] = {
    "data": {"digits": {"subset": 200}},
    "model": "linear",
    "train": {"epochs": 3, "threads": 1, "precision": "float32"},
    "runs": {
        "net": {},
        "nearest": {"estimator": "knn"},
        "edges": {"estimator": {"hog_svm": {"cell": 8, "landmarks": 50}}},
    },
}


def carried_out(folder: Path, values: dict[str, Any] = STUDY) -> Path:
    return pipeline.run(study_file.expand_study(values, name="mixed", base=folder), out=folder)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and two estimators on the digits, tested on the same 360 images."""
    torch.set_num_threads(1)
    return carried_out(tmp_path_factory.mktemp("mixed"))


def of_estimator(task: Task, value: Any, **asked: Any) -> Task:
    return replace(task, config=replace(task.config, estimator=value, **asked))


def test_what_a_fitted_run_leaves(mixed: Path) -> None:
    run = RunFolder(mixed / "nearest" / "seed-0")
    files = {file.name for file in run.path.iterdir()}
    assert {
        "estimator.npz",
        "estimator.json",
        "likeness.npz",
        "predictions",
        "examples",
        "record.json",
    } <= files
    assert not files & {"model.safetensors", "model.json", "metrics.jsonl", "checkpoint.pt"}
    record = read_json(run.record)
    assert record["status"] == "finished"
    assert record["training"]["images"] == 200
    assert record["training"]["seconds"] > 0
    assert record["scoring"]["test"]["images"] == 360
    assert record["reads_of_test"] == 1
    assert not record["watched_test"]
    assert record["scores"]["test"]["accuracy"]["value"] > 0.8
    assert "ece_calibrated" in record["scores"]["test"]
    config = yaml.safe_load(run.config.read_text())
    assert config["estimator"] == "knn"
    compute = {"device": "cpu", "precision": "float32", "threads": 1, "memory_format": "contiguous"}
    assert config["train"] == {**compute, "subset": None}
    assert not {"model", "input"} & config.keys()


def test_the_comparison_holds_estimators_against_networks(mixed: Path) -> None:
    compared = read_json(mixed / "comparison.json")
    nearest = next(c for c in compared["contrasts"] if c["b"] == "nearest")
    assert nearest["difference"]["n"] == 360
    assert {(c["b"], c["measure"]) for c in compared["costs"]} >= {
        ("nearest", "seconds to the stop"),
        ("edges", "seconds to the stop"),
    }
    scores = {
        name: RunFolder(mixed / name / "seed-0").load_predictions("test") for name in ("net", "nearest")
    }
    right = {name: arrays["scores"].argmax(1) == arrays["labels"] for name, arrays in scores.items()}
    labels = scores["net"]["labels"]
    errors = next(e for e in compared["errors"] if e["b"] == "nearest")
    for k in range(10):
        own = labels == k
        assert errors["images"][k] == own.sum()
        assert errors["only_a"][k] == (own & ~right["net"] & right["nearest"]).sum()
        assert errors["only_b"][k] == (own & right["net"] & ~right["nearest"]).sum()
        assert errors["both"][k] == (own & ~right["net"] & ~right["nearest"]).sum()


def test_the_report_shows_them_side_by_side(mixed: Path) -> None:
    page = (mixed / "report.html").read_text()
    assert "Errors of <bdi>net</bdi> and <bdi>nearest</bdi> by class" in page
    own = (mixed / "edges" / "seed-0" / "report.html").read_text()
    assert "An estimator, fitted on 200 images in" in own
    assert 'id="layers"' not in own
    assert 'id="curves"' not in own
    assert 'id="pictures"' in own


def test_finished_is_finished_and_the_networks_settings_do_not_matter(mixed: Path) -> None:
    estimator = mixed / "nearest" / "seed-0" / "estimator.npz"
    before = estimator.stat().st_mtime_ns
    runs = {"nearest": {"estimator": "knn"}}
    carried_out(
        mixed.parent, {**STUDY, "runs": runs, "train": {**STUDY["train"], "epochs": 7}, "model": "mlp"}
    )
    assert estimator.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"holds another configuration \(estimator.*knn"):
        carried_out(mixed.parent, {**STUDY, "runs": {"nearest": {"estimator": {"knn": {"neighbours": 3}}}}})


@pytest.mark.slow
def test_its_config_repeats_the_run_bit_for_bit(mixed: Path, tmp_path: Path) -> None:
    for name in ("nearest", "edges"):
        again = pipeline.run(study_file.read_study(mixed / name / "seed-0" / "config.yaml"), out=tmp_path)
        first, second = (RunFolder(folder / name / "seed-0") for folder in (mixed, again))
        for kind in ("test", "validation"):
            kept = [folder.load_predictions(kind)["scores"] for folder in (first, second)]
            assert np.array_equal(*kept)


def test_a_fit_that_was_interrupted_starts_again(
    task_of: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = of_estimator(task_of(folder=tmp_path / "run" / "seed-0"), "knn")
    with monkeypatch.context() as killing:
        killing.setattr(
            train_stage, "save_estimator", lambda *anything: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            stages.carry_out(task)
    assert read_json(task.folder / "record.json")["stages"] == {}
    other = of_estimator(task_of(folder=tmp_path / "other" / "seed-0"), "knn")
    records = [stages.carry_out(each) for each in (task, other)]
    assert all(record.status == "finished" for record in records)
    scores = [RunFolder(each.folder).load_predictions("test")["scores"] for each in (task, other)]
    assert np.array_equal(*scores)


def test_corruptions_are_a_pass_over_images(task_of: Callable[..., Task]) -> None:
    task = of_estimator(task_of(), "knn", corruptions=Corruptions(["blur"], images=30))
    record = stages.carry_out(task)
    folder = RunFolder(task.folder)
    with np.load(folder.path / "corruptions" / "result.npz") as kept:
        index, clean, right = kept["index"], kept["clean"], kept["right"]
    predicted = folder.load_predictions("test")
    assert np.array_equal(clean, (predicted["scores"].argmax(1) == predicted["labels"])[index])
    assert right.shape == (1, 5, 30)
    assert right[0, 0].mean() > 0.6
    assert record.reads_of_test == 2


def test_warnings_of_the_library_are_told_in_the_record(task_of: Callable[..., Task]) -> None:
    record = stages.carry_out(of_estimator(task_of(), {"logistic_regression": {"iterations": 1}}))
    assert [note.kind for note in record.findings] == ["fitting"]
    assert "failed to converge" in record.findings[0].message


def test_from_python_and_on_picture_files(mixed: Path, small: Data, tmp_path: Path) -> None:
    folder = mixed / "nearest" / "seed-0"
    model = sl.load(folder)
    assert small.test is not None
    assert sl.evaluate(model, small.test)["accuracy"].value > 0.8
    assert np.allclose(sl.predict(model, small.test.floats(small.test.images[:3]).numpy()).sum(1), 1)
    for k, image in enumerate(small.test.images[:12]):
        Image.fromarray((image[0].float() * 255 / 16).round().to(torch.uint8).numpy()).save(
            tmp_path / f"{k:02d}.png"
        )
    classifier = Classifier(open_predictor(folder))
    found = list(classifier.classify(sorted(tmp_path.glob("*.png"))))
    assert classifier.facts.calibrated_on == "validation"
    assert np.mean([row.classes[0][0] == str(int(y)) for row, y in zip(found, small.test.labels)]) > 0.7
    assert not any(row.out_of_distribution for row in found)


BLOCKS = re.findall(
    r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "estimators.md").read_text(), re.DOTALL
)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_page_is_a_study(block: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(block)
    assert any(run.config.estimator is not None for run in study_file.read_study(file).variants)


def test_one_estimator_by_its_name(tmp_path: Path, small: Data) -> None:
    run = sl.train("knn", small, out=tmp_path / "runs", threads=1)
    assert run.scores()["accuracy"].value > 0.7
    assert isinstance(run.model()[0], Estimated)
    for options, told in (({"epochs": 3}, "epochs"), ({"input": {"size": 16}}, "input")):
        with pytest.raises(ConfigError, match=f"{told} means nothing to the estimator 'knn'"):
            sl.train("knn", small, out=tmp_path / "runs", **options)  # type: ignore[arg-type]


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("estimator: knnn", "s.yaml:1: estimator: no estimator is called 'knnn'; did you mean 'knn'?"),
        (
            "estimator: {knn: {neighbours: 0}}",
            "s.yaml:1: estimator.knn.neighbours: input should be greater than or equal to 1",
        ),
        ("estimator: {sift_bovw_svm: {sizes: []}}", "estimator.sift_bovw_svm.sizes: "),
        (
            "runs:\n  a: {estimator: knn, estimator.words: 3}",
            "s.yaml:2: runs.a.estimator.words: knn has no option 'words'",
        ),
        ("runs: {a: {estimator.words: 3}}", "estimator names no plug-in, so words cannot be set"),
        (
            "runs:\n  a: {estimator: knn,\n    train.epochs: 3}",
            "s.yaml:3: runs.a.train.epochs: has no effect on the estimator knn",
        ),
        ("runs: {a: {estimator: knn, model: mlp}}", "runs.a.model: has no effect on the estimator knn"),
        (
            "runs: {a: {estimator: knn, input.size: 16}}",
            "runs.a.input.size: has no effect on the estimator knn",
        ),
        ("grid: {train.lr: [0.1, 1]}\nestimator: knn", "s.yaml:1: grid.train.lr"),
        (
            "robustness: {radii: 0.1}\nruns:\n  a: {estimator: knn}",
            "s.yaml:3: runs.a.estimator: knn is an estimator and has no gradient, and the attacks fgsm",
        ),
        (
            "runs: {a: {estimator: knn, robustness: {radii: 0.1}}}",
            "runs.a.robustness: knn is an estimator and has no gradient,",
        ),
        (
            (
                "runs:\n  a: {estimator: knn}\n"
                "  b: {robustness: {radii: 0.1, protocol: [transfer], surrogate: a}}"
            ),
            "s.yaml:3: runs.b.robustness.surrogate: a is an estimator and has no gradients for an attack",
        ),
    ],
)
def test_a_study_that_asks_for_the_impossible(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        study_file.read_study(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "train: {epochs: 3}\nruns:\n  a: {estimator: knn, train.threads: 1}\n  b: {}",
        "robustness: {radii: 0.1}\nruns:\n  a: {estimator: knn, robustness: null}\n  b: {}",
        "robustness: {radii: 0.1, protocol: [square]}\nruns:\n  a: {estimator: knn}\n  b: {}",
    ],
)
def test_what_all_runs_share_may_stand(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text + "\n")
    assert [run.config.estimator for run in study_file.read_study(file, ["train.lr=0.1"]).variants] == [
        "knn",
        None,
    ]


def test_attacks_along_gradients_refuse_it_by_name(mixed: Path, small: Data) -> None:
    assert small.test is not None
    with pytest.raises(NoGradient, match=r"^an estimator has no gradient, and the attacks fgsm, pgd"):
        sl.attack(sl.load(mixed / "nearest" / "seed-0"), small.test, radii=0.1)
    asked = robustness_config({"radii": 0.1, "protocol": ["square", "fgsm"]})
    with pytest.raises(NoGradient, match=r"is the estimator knn, which has no gradient, and the attack fgsm"):
        attack_run(RunFolder(mixed / "nearest" / "seed-0"), asked, base=mixed)
    with pytest.raises(
        ConfigError, match="surrogate: it is an estimator and has no gradient to lend, which pg"
    ):
        attack(
            mixed / "net" / "seed-0", radii="0.1", protocol="[transfer]", surrogate=mixed / "edges" / "seed-0"
        )


@pytest.mark.slow
def test_attacks_without_gradients_take_it(mixed: Path) -> None:
    square = {"square": {"queries": 20}}
    asked = robustness_config({"radii": [0.1, 1], "protocol": [square], "images": 12, "audit": False})
    folder = RunFolder(mixed / "nearest" / "seed-0")
    found = attack_run(folder, asked, base=mixed)
    at_largest = found.table()[-1]
    assert at_largest.accuracy < found.table()[0].accuracy
    assert found.result.cost.gradients == 0
    again = attack_run(folder, asked, base=mixed)
    assert again.result.fingerprint == found.result.fingerprint

    transfer = {"transfer": {"attack": {"pgd": {"steps": 5}}}}
    asked = robustness_config({"radii": 0.5, "protocol": [transfer], "images": 12, "audit": False})
    carried = attack_run(folder, asked, base=mixed, surrogate=sl.load(mixed / "net" / "seed-0"))
    assert carried.table()[-1].accuracy < 0.5


def test_a_class_that_no_training_image_shows(task_of: Callable[..., Task], small: Data) -> None:
    data = replace(small, train=small.train.select((small.train.labels != 4).nonzero().flatten()))
    with pytest.raises(DataError, match="no training image shows 4; an estimator needs some of every class"):
        succeeded(stages.carry_out(of_estimator(task_of(data=data), "knn")))


@pytest.mark.parametrize("returned", ["None", "object()", "[]"])
def test_an_own_estimator_that_is_none(task_of: Callable[..., Task], tmp_path: Path, returned: str) -> None:
    (tmp_path / "own.py").write_text(f"def mine(seed):\n    return {returned}\n")
    with pytest.raises(
        ConfigError,
        match=r"estimator own.py:mine returned a .*; expected an object with fit, scores and arrays",
    ):
        succeeded(stages.carry_out(of_estimator(task_of(), "own.py:mine")))


def test_an_own_estimator_is_copied_and_opened_only_when_trusted(
    task_of: Callable[..., Task], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from stresslens.plugins.estimators.knn import knn\n\n\ndef mine(seed):\n    return knn(seed)\n"
    )
    task = of_estimator(task_of(), "own.py:mine")
    stages.carry_out(task)
    with pytest.raises(ConfigError, match="runs only if you trust it"):
        open_model(RunFolder(task.folder))
    assert isinstance(open_model(RunFolder(task.folder), trust=True)[0], Estimated)


def test_files_that_are_missing_damaged_or_of_another_run(
    task_of: Callable[..., Task], tmp_path: Path
) -> None:
    task = of_estimator(task_of(), "knn")
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    content = folder.estimator.read_bytes()
    for broken in (content[: len(content) // 2], b"no zip"):
        folder.estimator.write_bytes(broken)
        with pytest.raises(UnreadableRun, match=r"estimator\.npz cannot be read"):
            open_model(folder)
    np.savez(folder.estimator, weights=np.zeros((10, 64)))
    with pytest.raises(UnreadableRun, match="do not belong together"):
        open_model(folder)
    np.savez(folder.estimator, labels=np.array([{}], dtype=object))
    with pytest.raises(UnreadableRun, match=r"Object arrays cannot be loaded|allow_pickle"):
        open_model(folder)
    folder.estimator.unlink()
    with pytest.raises(UnreadableRun, match="has not been fitted"):
        open_model(folder)
    folder.estimator.write_bytes(content)
    card = json.loads(folder.estimator_card.read_text())
    write_json(folder.estimator_card, {**card, "classes": card["classes"][:4]})
    with pytest.raises(UnreadableRun, match="gives 10 scores for the 4 classes"):
        open_model(folder)
    write_json(folder.estimator_card, {**card, "seed": "three"})
    with pytest.raises(UnreadableRun, match="not a model description of format 1: seed"):
        open_model(folder)
