"""Words of version 0.1.0 in study files, options and calls still work, are told once, and are the
same run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stresslens.cli.main import app
from stresslens.config import old_words, study_file
from stresslens.config.run_names import folder_name
from stresslens.core.errors import ConfigError, Notice

OLD = """
data: digits
model: mlp
train: {epochs: 3, tune: {layers: gradual, every: 2, decay: 0.5, head_rate: 3.0}}
curve: {sizes: [100, 200]}
robustness: {radii: [0.1], alone: [fgsm], passes: 4}
explain: {explainers: [saliency], choose: surest_wrong, answer: label}
views: {kinds: [counterfactual, {counterfactual: {images: 2}}], choose: cells}
runs:
  a: {}
  b: {train.tune.every: 1, robustness.passes: 2, explain: {explainers: [saliency], answer: 3}}
grid: {train.tune.decay: [0.5, 0.9]}
contrasts: {slower: {vary: train.tune.decay}}
"""
NEW = """
data: digits
model: mlp
train: {epochs: 3, fine_tune: {layers: gradual, unfreeze_every: 2, layer_decay: 0.5, head_lr_scale: 3.0}}
data_sizes: {sizes: [100, 200]}
robustness: {radii: [0.1], individual_attacks: [fgsm], eot_samples: 4}
explain: {explainers: [saliency], choose: most_confident_wrong, target_class: label}
views: {kinds: [adversarial_examples, {adversarial_examples: {images: 2}}], choose: confused_pairs}
runs:
  a: {}
  b: {train.fine_tune.unfreeze_every: 1, robustness.eot_samples: 2,
      explain: {explainers: [saliency], target_class: 3}}
grid: {train.fine_tune.layer_decay: [0.5, 0.9]}
contrasts: {slower: {vary: train.fine_tune.layer_decay}}
"""


def read(tmp_path: Path, text: str, *overrides: str) -> study_file.Study:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return study_file.read_study(file, overrides)


def test_a_study_in_old_words_is_the_same_study(tmp_path: Path) -> None:
    with pytest.warns(Notice, match="curve is now data_sizes.*train.tune is now fine_tune") as caught:
        old = read(tmp_path, OLD)
    assert len([each for each in caught if each.category is Notice]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = read(tmp_path, NEW)
    assert [run.config for run in old.variants] == [run.config for run in new.variants]
    pairs = [tuple(name.replace("decay", "layer_decay") for name in pair) for _, *pair in old.contrasts]
    assert pairs == [tuple(pair) for _, *pair in new.contrasts]
    # folders are named as the study file writes, so an old study finds the runs that it made
    assert [run.name.replace("decay", "layer_decay") for run in old.variants] == [
        run.name for run in new.variants
    ]
    assert old.variants[0].name == "a,decay=0.5,size=100"


def test_overrides_in_old_words(tmp_path: Path) -> None:
    study = "data: digits\nmodel: mlp\ntrain: {epochs: 5}\n"
    with pytest.warns(
        Notice, match=r"train\.tune is now fine_tune, train\.fine_tune\.head_rate is now head_lr_scale"
    ):
        old = read(tmp_path, study, "train.tune.head_rate=2.0")
    assert old.variants[0].config.train.fine_tune is not None
    assert old.variants[0].config.train.fine_tune.head_lr_scale == 2.0


def test_mistakes_below_an_old_key_name_their_line(tmp_path: Path) -> None:
    text = "data: digits\ntrain:\n  tune:\n    layers: gradual\n    evry: 2\n"
    with (
        pytest.warns(Notice),
        pytest.raises(ConfigError, match=r"study\.yaml:5: train\.fine_tune\.evry: unknown key"),
    ):
        read(tmp_path, text)


def test_both_spellings_at_once_are_told(tmp_path: Path) -> None:
    text = "data: digits\nrobustness: {radii: [0.1], passes: 2, eot_samples: 3}\n"
    message = r"study\.yaml:2: robustness\.eot_samples: passes is the old name of eot_samples; give one"
    with pytest.warns(Notice), pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "curve: {sizes: [2, 3]}\ndata_sizes: {sizes: [2, 3]}",
            r":2: data_sizes: curve is the old name of data_sizes",
        ),
        (
            "runs: {a: {train.tune: {layers: head}, train.fine_tune: {layers: all}}}",
            r":1: runs\.a\.train\.fine_tune: train\.tune is the old name of train\.fine_tune",
        ),
        (
            "grid: {train.tune.decay: [1], train.fine_tune.layer_decay: [0.5]}",
            r":1: grid\.train\.fine_tune\.layer_decay: train\.tune\.decay is the old name",
        ),
    ],
)
def test_both_spellings_are_told_wherever_they_stand(text: str, message: str, tmp_path: Path) -> None:
    with pytest.warns(Notice), pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.tune={layers: all, decay: 0.5}", "layer_decay", 0.5),
        ("train.tune.every=3", "unfreeze_every", 3),
    ],
)
def test_old_words_inside_the_value_of_an_override(
    override: str, key: str, value: float, tmp_path: Path
) -> None:
    study = "data: digits\nmodel: mlp\ntrain: {epochs: 5}\n"
    extra = [] if "{" in override else ["train.tune.layers=gradual"]
    with pytest.warns(Notice):
        found = read(tmp_path, study, *extra, override)
    assert getattr(found.variants[0].config.train.fine_tune, key) == value
    assert found.variants[0].name.endswith(folder_name("", [override]))  # named as it was typed


def test_the_settings_of_a_sweeps_journal_keep_the_words_of_0_1() -> None:
    settings = {"train.fine_tune.layer_decay": 0.5, "train.fine_tune": {"unfreeze_every": 2}, "train.lr": 0.1}
    old = {"train.tune.decay": 0.5, "train.tune": {"every": 2}, "train.lr": 0.1}
    assert old_words.settings_in_words_of_0_1(settings) == old
    assert old_words.settings_in_todays_words(old) == settings
    assert old_words.settings_in_todays_words(settings) == settings


VARIANTS: list[dict[str, Any]] = [
    {
        "train": {
            "fine_tune": {"layers": "all", "layer_decay": 0.5, "head_lr_scale": 1.0, "unfreeze_every": 1}
        }
    },
    {"robustness": {"individual_attacks": ["fgsm"], "eot_samples": "auto", "radii": [0.1]}},
    {"explain": {"explainers": ["gradcam"], "choose": "least_confident", "target_class": 2}},
    {"views": ["filters", "adversarial_examples"]},
    {"views": {"kinds": [{"adversarial_examples": {"images": 1}}], "choose": [1, 2]}},
    {"train": {"lr": 0.1}, "model": {"mlp": {"widths": [4]}}},
]


@given(st.lists(st.sampled_from(VARIANTS), min_size=1))
@settings(deadline=None)
def test_words_of_0_1_and_back_are_the_same(parts: list[dict[str, Any]]) -> None:
    values = {key: value for part in parts for key, value in part.items()}
    old = old_words.in_words_of_0_1(values)
    assert old_words.in_todays_words(old) == values
    assert old_words.in_words_of_0_1(old) == old


def test_fingerprints_are_made_of_the_words_of_0_1() -> None:
    values = {
        "train": {"fine_tune": {"unfreeze_every": 1}},
        "robustness": {"individual_attacks": [], "eot_samples": 1},
    }
    old = {"train": {"tune": {"every": 1}}, "robustness": {"alone": [], "passes": 1}}
    assert old_words.in_words_of_0_1(values) == old
    assert old_words.in_words_of_0_1(["filters", "adversarial_examples"], ("views",)) == [
        "filters",
        "counterfactual",
    ]


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("attack", ["--alone", "fgsm"], "--alone is now --individual-attack"),
        ("attack", ["--passes=3"], "--passes is now --eot-samples"),
        ("explain", ["--answer", "label"], "--answer is now --target-class"),
        ("explain", ["--by", "other"], "--by is now --images-from"),
    ],
)
def test_old_options_are_taken_with_a_notice(command: str, old: list[str], new: str, tmp_path: Path) -> None:
    with pytest.warns(Notice, match=new):
        done = CliRunner().invoke(app, [command, str(tmp_path), *old])
    assert "No such option" not in done.output
