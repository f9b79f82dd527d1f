"""Means of weights as runs: what is averaged and kept, what is told, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import update_bn
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.config import study_file
from stresslens.config.schema import Input
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.run_folder import ModelCard, RunFolder
from stresslens.evaluation.ensemble_record import EnsembleRecord
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.soups import KIND
from stresslens.study import stages
from stresslens.training.task import Task

NET = {"batch_norm": True, "channels": 4, "hidden": 8}
Make = Callable[..., Task]


@pytest.fixture
def trained(task_of: Make, tmp_path: Path) -> Callable[..., RunRecord]:
    """Trains a run of the study `tmp_path / "s"`."""

    def train(name: str, model: Any, **settings: Any) -> RunRecord:
        return stages.carry_out(task_of(model, folder=tmp_path / "s" / name / "seed-0", **settings))

    return train


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned") / "s"


@pytest.fixture
def tuned(task_of: Make, shared: Path, tmp_path: Path) -> Path:
    """A copy of a study of a run and of two that were fine-tuned from its weights."""
    if not shared.is_dir():
        base = {"epochs": 5, "batch_size": 20, "lr": 0.01}
        tune = {"simple_cnn": {**NET, "weights": {"run": "base"}}}
        stages.carry_out(task_of({"simple_cnn": NET}, folder=shared / "base/seed-0", **base))
        for name, lr in (("a", 0.001), ("b", 0.003)):
            settings = {**base, "epochs": 1, "lr": lr}
            stages.carry_out(task_of(tune, folder=shared / name / "seed-0", **settings))
    shutil.copytree(shared, tmp_path / "s")
    return tmp_path / "s"


def soup(*runs: str, **options: Any) -> dict[str, Any]:
    return {"soup": {"runs": list(runs), **options}}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(folder).weights)


def ensemble_of(record: RunRecord) -> EnsembleRecord:
    assert record.ensemble is not None
    return record.ensemble


@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_it_is_one_net_of_the_mean_weights_with_new_statistics_of_batch_norm(
    trained: Callable[..., RunRecord], tuned: Path, small: Data
) -> None:
    record = trained("soup", soup("a", "b"))
    folder = tuned / "soup/seed-0"
    found, parts = weights(folder), [weights(tuned / name / "seed-0") for name in "ab"]
    learned = [name for name in found if "running" not in name and "tracked" not in name]
    for name in learned:
        assert torch.equal(found[name], ((parts[0][name].double() + parts[1][name].double()) / 2).float())
    net = open_model(RunFolder(tuned / "a/seed-0"))
    net.net.load_state_dict({**parts[0], **{name: found[name] for name in learned}})
    update_bn([small.train.floats(small.train.images[:])], net)  # its own way over one batch
    for name, value in net.net.state_dict().items():
        assert torch.allclose(found[name].float(), value.float(), rtol=1e-4, atol=1e-5), name
    described = ensemble_of(record)
    assert (described.average, described.steps, described.renewed_layers) == ("weights", [], 3)
    assert record.training.epochs == 0
    assert record.training.stopped == "the mean of the weights of 2 runs"
    assert not [note for note in record.findings if note.kind == KIND]
    assert record.scores["test"]["accuracy"].low > 0.1  # better than chance
    for split in ("validation", "test"):
        accuracies = [each.value for each in described.splits[split].accuracy]
        alone = [json.loads((tuned / name / "seed-0/record.json").read_text())["scores"] for name in "ab"]
        assert accuracies == [each[split]["accuracy"]["value"] for each in alone]
        gain = record.scores[split]["accuracy"].value - accuracies[0]
        assert described.splits[split].gain[0].value == pytest.approx(gain)


@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_its_folder_is_enough_without_its_members(
    trained: Callable[..., RunRecord], tuned: Path, tmp_path: Path, small: Data
) -> None:
    trained("soup", soup("a", "b"))
    folder = RunFolder(tuned / "soup/seed-0")
    card, first = folder.load_card(), RunFolder(tuned / "a/seed-0").load_card()
    assert isinstance(card, ModelCard)
    assert card == first
    before = open_model(folder)(torch.full((1, 1, 8, 8), 0.5))
    alone = tmp_path / "alone/seed-0"
    shutil.copytree(folder.path, alone)
    shutil.rmtree(tuned)
    assert torch.equal(open_model(RunFolder(alone))(torch.full((1, 1, 8, 8), 0.5)), before)
    exported = sl.export(alone, "safetensors", out=tmp_path / "exported")
    images = small.test.floats(small.test.images[:3]).numpy()  # type: ignore[union-attr]
    answers = [sl.predict(place, images) for place in (alone, exported.file)]
    assert np.allclose(*answers, atol=1e-5)
    described = json.loads((alone / "record.json").read_text())["ensemble"]
    sl.evaluate(alone, data=small)
    again = json.loads((alone / "record.json").read_text())["ensemble"]
    assert again == described  # of members that are gone it is as it was


def test_made_again_it_is_not_made_anew(trained: Callable[..., RunRecord], tuned: Path) -> None:
    trained("soup", soup("a", "b"))
    file = RunFolder(tuned / "soup/seed-0").weights
    before = file.stat().st_mtime_ns
    assert trained("soup", soup("a", "b")).status == "finished"
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="holds another configuration"):
        trained("soup", soup("a", "base"))


@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_a_greedy_one_leaves_a_bad_member_out(trained: Callable[..., RunRecord], tuned: Path) -> None:
    trained("bad", {"simple_cnn": NET}, epochs=0, seed=7)
    record = trained("soup", soup("bad", "a", choose="greedy"))
    found = ensemble_of(record)
    first, second = found.steps
    assert (first.member, first.kept, second.member, second.kept) == (1, True, 0, False)
    assert second.accuracy < first.accuracy == found.splits["validation"].accuracy[1].value
    assert record.training.stopped == "the mean of the weights of 1 run"
    assert found.renewed_layers == 0  # a single net stays as it is
    kept = weights(tuned / "soup/seed-0")
    assert all(torch.equal(kept[name], value) for name, value in weights(tuned / "a/seed-0").items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_a_greedy_one_is_never_below_its_best_member(trained: Callable[..., RunRecord], tuned: Path) -> None:
    record = trained("soup", soup("a", "b", "base", choose="greedy"))
    found = ensemble_of(record)
    alone = [each.value for each in found.splits["validation"].accuracy]
    order = [step.member for step in found.steps]
    assert order == sorted(range(3), key=lambda number: -alone[number])
    kept = [step.accuracy for step in found.steps if step.kept]
    assert kept == sorted(kept)
    assert record.scores["validation"]["accuracy"].value == kept[-1] >= max(alone)
    assert record.reads_of_test == 1


@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_members_from_different_random_weights_are_told(trained: Callable[..., RunRecord]) -> None:
    for name, seed in (("x", 0), ("y", 1)):
        trained(name, {"mlp": {"widths": [16, 16, 16]}}, epochs=25, batch_size=20, lr=0.01, seed=seed)
    record = trained("soup", soup("x", "y"))
    (note,) = [note for note in record.findings if note.kind == KIND]
    assert "the members do not lie in one basin" in note.message
    assert "different random weights do not average" in note.message


def test_what_has_no_mean_is_refused_in_words(
    task_of: Make, trained: Callable[..., RunRecord], small: Data, tmp_path: Path
) -> None:
    vit = {"width": 8, "heads": 1, "depth": 1, "patch": 4}
    trained("vit", {"vit": vit}, epochs=0)
    trained("relu", {"vit": {**vit, "activation": "relu"}}, epochs=0)
    trained("deep", {"vit": {**vit, "depth": 2}}, epochs=0)
    task = task_of({"vit": vit}, folder=tmp_path / "s/plain/seed-0", epochs=0)
    stages.carry_out(replace(task, config=replace(task.config, input=Input(normalize="none"))))
    config = study_file.variant_config_from({"estimator": "knn", "data": "digits"}, tmp_path)
    place = tmp_path / "s/means/seed-0"
    stages.carry_out(replace(task, config=config, folder=place))
    for runs, why in (
        (("vit", "deep"), r"vit/seed-0 and .*deep/seed-0 are different nets.*missing in the other"),
        (("vit", "relu"), r"vit/seed-0 and .*relu/seed-0 are different nets: with the same weights"),
        (("vit", "plain"), r"different ways: the factor of the normalisation is .* and 1 in the other"),
        (("vit", "means"), "means/seed-0 holds an estimator, which has no weights to average"),
        (("vit", "vit"), "is named twice; every member counts once"),
    ):
        with pytest.raises(ConfigError, match=why):
            trained("soup", soup(*runs))
    with pytest.raises(ConfigError, match="validation images, and the data have none"):
        trained("soup", soup("vit", choose="greedy"), data=replace(small, validation=None))


def test_a_study_names_members_that_have_weights(tmp_path: Path) -> None:
    values = {"study": "s", "data": "digits", "model": "linear", "runs": {"m": {"estimator": "knn"}}}
    values["runs"]["soup"] = {"model": soup("m")}  # type: ignore[index]
    with pytest.raises(Problems, match="m is an estimator and has no weights to average"):
        study_file.expand_study(values, name="s", base=tmp_path)


@pytest.mark.parametrize("by", ["study", "command"])
def test_its_statistics_are_of_the_images_that_its_members_trained_on(tmp_path: Path, by: str) -> None:
    values: dict[str, Any] = {
        "study": "s",
        "data": {"digits": {"subset": 100}},
        "model": "linear",
        "input": {"normalize": "none"},
        "train": {"epochs": 1, "subset": {"images": 30}, "precision": "float32", "threads": 1},
        "runs": {"a": {"train.lr": 0.01}, "b": {"train.lr": 0.02}},
    }
    if by == "study":
        values["runs"]["soup"] = {"model": soup("a", "b")}
    study = sl.run(values, out=tmp_path, progress=False)
    members = [study.folder / name / "seed-0" for name in "ab"]
    if by == "command":
        sl.ensemble(members, average="weights", out=tmp_path)
    folder = (
        study.folder / "soup" if by == "study" else next((tmp_path / "ensembles").glob("*/seed-0")).parent
    )
    found, member = (read_record(RunFolder(run)).data for run in (folder / "seed-0", members[0]))
    assert found.sizes["train"] == 30
    assert found.splits == member.splits


def test_a_command_says_what_was_kept_and_the_page_compares_it_with_its_members(tmp_path: Path) -> None:
    values = {
        "study": "s",
        "data": {"digits": {"subset": 100}},
        "model": "linear",
        "train": {"epochs": 1, "precision": "float32", "threads": 1},
        "runs": {"a": {"train.lr": 0.01}, "b": {"train.lr": 0.02}},
    }
    sl.run(values, out=tmp_path, progress=False)
    command = ["ensemble", *(str(tmp_path / "s" / name) for name in "ab"), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--average", "weights-greedy"])
    assert done.exit_code == 0, done.output
    assert "In the order of their accuracy on validation images" in done.output
    page = (tmp_path / "ensembles/a-and-1-more-greedy-soup/seed-0/report.html").read_text()
    assert "Soup minus member, points" in page
    assert "The mean of the weights of" in page
    assert "and its mean member are not distinguishable" in page or "mean member:" in page
    done = CliRunner().invoke(app, [*command, "--average", "median"])
    assert "'weights' or 'weights-greedy' for one net" in str(done.exception)


@pytest.mark.slow
def test_from_python_it_is_attacked_and_compared_like_any_other(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    data = sl.Data.from_arrays(numbers.random((120, 1, 8, 8), np.float32), np.arange(120) % 4)
    train = {"epochs": 1, "precision": "float32", "threads": 1}
    runs = [
        sl.train("linear", data, out=tmp_path / "s", name=name, lr=lr, progress=False, **train)
        for name, lr in (("a", 0.01), ("b", 0.02))
    ]
    run = sl.ensemble(runs, data=data, average="weights", out=tmp_path, progress=False)
    assert run.folder == tmp_path / "ensembles/a-and-1-more-soup/seed-0"
    assert sl.attack(run, radii=0.1, protocol=["fgsm"], n_images=5, audit=False) is not None
    assert sl.compare(run, runs[0]) is not None
    again = sl.ensemble([run, runs[0]], data=data, average="weights", out=tmp_path, progress=False)
    parts = [weights(each.folder)["1.weight"].double() for each in (run, runs[0])]
    assert torch.equal(weights(again.folder)["1.weight"], (sum(parts) / 2).float())
