"""A key that no configuration has: which one was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresslens.config import study_file
from stresslens.config.schema import Train
from stresslens.config.setting_keys import option_keys, setting_keys, unknown_setting
from stresslens.core.errors import ConfigError

PLAIN = "model: mlp\n"


def message(folder: Path, text: str, *overrides: str) -> str:
    file = folder / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        study_file.read_study(file, overrides)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("name", sorted(Train.__dataclass_fields__))
def test_the_last_part_of_a_key_is_not_enough_and_the_whole_key_is_named(tmp_path: Path, name: str) -> None:
    told = message(tmp_path, PLAIN, f"{name}=1")
    assert told.startswith(f"command line: {name}=1: unknown key; did you mean ")
    assert f"train.{name}" in told


@pytest.mark.parametrize("key", sorted(key for key, names in option_keys().items() if len(names) == 1))
def test_an_option_of_a_plugin_is_named_with_its_plugin(key: str) -> None:
    leaf = key.rpartition(".")[2]
    told = unknown_setting(leaf, {})
    if leaf not in setting_keys():
        assert told is not None
        assert key in told or told.endswith("…?")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("epochs=4", "did you mean train.epochs?"),
        ("epoch=4", "did you mean train.epochs?"),
        ("Epochs=4", "did you mean train.epochs?"),
        ("trian.epochs=4", "did you mean train.epochs?"),
        ("train.epoch=4", "did you mean train.epochs?"),
        ("optimizer.lr=4", "did you mean train.lr?"),
        (
            "stop.patience=4",
            "did you mean train.stop.patience or train.schedule.patience (an option of plateau)?",
        ),
        ("train.stop.patient=4", "did you mean train.stop.patience?"),
        ("eps=0.1", "did you mean train.optimizer.eps or train.objective.eps (an option of adversarial, "),
        ("widths=[3]", "did you mean model.widths?"),
        ("momentum=0.9", "train.optimizer.momentum (an option of momentum, nesterov, rmsprop)?"),
        ("images=9", "robustness.images, corruptions.images or train.subset.images?"),
        ("epochs", "for example train.epochs=1; did you mean train.epochs?"),
        ("foo=1", "unknown key; valid: ablate, contrasts, corruptions, data, data_sizes, "),
        ("repeat=1", "repeat=1: unknown key; did you mean repeats?"),
        ("run.a={}", "unknown key; did you mean runs.a?"),
        ("variants={}", "unknown key; did you mean 'runs'?"),
        ("robustness.protocol=pgd", "'standard' or 'none', or a list, as ['pgd'], got 'pgd'"),
        ("robustness.protocol=fsat", "or a list of attacks, got 'fsat'; did you mean 'fast'?"),
        ("explain=gradcm", "explain=gradcm: input should be a list, as ['gradcam'], got 'gradcm'"),
        ("train.precision=float23", "got 'float23'; did you mean 'float32'?"),
        ("sweep.sampler=tpe", "unknown key; did you mean 'method'?"),
        ("sweep={space: {train.lr: {low: 1, high: 2}}}", "train.lr.low: unknown key; did you mean 'from'?"),
        ("sweep={space: {train.lr: {from: 1, max: 2}}}", "train.lr.max: unknown key; did you mean 'to'?"),
        ("train.qqq=1", "valid: train."),
        ("seed=3", "write repeats=[3], on the command line also --seed 3"),
        ("out=x", "write --out x"),
        ("jobs=2", "write --jobs 2"),
        ("train.subset=50", "train.subset=50: input should be an object, as {'images': 50}, got 50"),
        ("train.fine_tune=head", "input should be an object, as {'layers': 'head'}, got 'head'"),
        ("robustness=fast", "input should be an object with keys such as radii, norm, protocol, got 'fast'"),
        ("train.loss=5", "should be the name of a plug-in, or {'name': {'option': value}}, got 5"),
        ("train.loss=torch.nn.functional:cross_entropy", "use the built-in 'cross_entropy'"),
        ("train.loss=torch.nn.functional:mse_loss", "use the built-in 'mse'"),
        ("runs=3", "command line: runs=3: input should be an object"),
        ("repeats=0", "command line: repeats=0: input should be greater"),
        ("=3", "an override is written key.path=value"),
    ],
)
def test_overrides(tmp_path: Path, override: str, meant: str) -> None:
    assert meant in message(tmp_path, PLAIN, override)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("epochs: 4", "study.yaml:2: epochs: unknown key; did you mean train.epochs?"),
        ("train: {widths: [3]}", "study.yaml:2: train.widths: unknown key; did you mean model.widths?"),
        ("runs:\n  a: {lr: 3}", "study.yaml:3: runs.a.lr: unknown key; did you mean train.lr?"),
        ("grid:\n  lr: [1, 2]", "study.yaml:3: grid.lr: unknown key; did you mean train.lr?"),
        ("grid: {train.epoch: [1]}", "grid.train.epoch: unknown key; did you mean train.epochs?"),
        ("sweep: {space: {lr: [0.1, 1]}}", "study.yaml:2: sweep.space.lr: a sweep varies settings of these"),
        ("sweep: {space: {lr: [0.1, 1]}}", "did you mean train.lr?"),
    ],
)
def test_study_files_with_their_line(tmp_path: Path, text: str, meant: str) -> None:
    told = message(tmp_path, PLAIN + text + "\n")
    assert meant in told
    assert len(told.splitlines()) == 1


def test_every_key_of_the_schema_is_a_setting() -> None:
    for key in ("train.stop.patience", "input.normalize.mean", "robustness.radii", "explain.images"):
        assert unknown_setting(key, {}) is None
    for key in ("model.anything", "train.optimizer.anything", "data.x.y", "robustness.radii.x"):
        assert unknown_setting(key, {}) is None  # checked with the plug-in, or by its type


def test_repeats_can_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("model: mlp\nrepeats: 3\n")
    study = study_file.read_study(file, ["repeats=1", "train.epochs=1"])
    assert study.seeds == [0]
    assert [variant.name for variant in study.variants] == ["run,train.epochs=1"]
    assert study_file.read_study(file, ["repeats=[3]"]).seeds == [3]
