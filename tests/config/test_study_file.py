from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from study_texts import problems, read

from stresslens.config import study_file
from stresslens.config.validation import objective_of
from stresslens.core.errors import ConfigError


def test_every_mistake_at_once_with_its_line_and_a_hint(tmp_path: Path) -> None:
    text = """\
data: {digits: {tset: 3}}
modle: mlp
train:
  epochs: -3
  lr: fast
  optimzer: sgd
  loss: mze
  augment: [flop]
train: {}
runs:
  a: {train.batch_size: 0}
  b: {train.lr: 0.1, train.lr: 0.2}
repeats: 0
"""
    found = problems(tmp_path, text)
    expected = [
        "study.yaml:3: train: is given twice, on lines 3 and 9",
        "study.yaml:2: modle: unknown key; did you mean 'model'?",
        "study.yaml:13: repeats: ",
        "study.yaml:1: data.digits.tset: digits has no option 'tset'; did you mean 'test'?",
        "study.yaml:4: train.epochs: input should be greater than or equal to 0, got -3",
        "study.yaml:5: train.lr: input should be a valid number, got 'fast'",
        "study.yaml:6: train.optimzer: unknown key; did you mean 'optimizer'?",
        "study.yaml:7: train.loss: no loss is called 'mze'; did you mean 'mse'?",
        "study.yaml:8: train.augment.0: no augmentation is called 'flop'; did you mean 'flip'?",
        "study.yaml:11: runs.a.train.batch_size: ",
        "study.yaml:12: runs.b.train.lr: is given twice, on lines 12 and 12",
    ]
    for line in expected:
        assert any(line in message for message in found), (line, found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: 2.5}", "study.yaml:1: train.epochs: input should be a valid integer"),
        ("train: {epochs: '3'}", "train.epochs: input should be a valid integer"),
        ("train: {shuffle: no}", "train.shuffle: input should be a valid boolean, got 'no'"),
        ("train: {lr: 0}", "train.lr: input should be greater than 0"),
        ("train: {lr: .inf}", "train.lr: input should be a valid number, got '.inf'"),
        (
            "model: {linear: {start: random}}",
            "model.linear.start: input should be 'library' or 'normal', got 'random'",
        ),
        ("model: {mlp: {widths: [0]}}", "model.mlp.widths: input should be greater than or equal to 1"),
        ("model: [mlp]", "model: "),
        ("train: {batch_size: full, accumulate: 2}", "train.accumulate: there are no batches to accumulate"),
        ("train: {stop: {patience: 3}, select: last}", "train.select: patience waits for a better epoch"),
        ("train: {stop: {patience: 3, loss_change: 0.1}}", "train.stop: give either loss_change or patience"),
        ("train: {select: accuracy, watch: []}", "train.watch: select: accuracy needs validation"),
        (
            "train: {objective: by_hand, loss: {cross_entropy: {smoothing: 0.1}}}",
            "train.objective.by_hand.loss: ",
        ),
        (
            "train: {schedule: {warmup: {then: cosin}}}",
            "train.schedule.warmup.then: no schedule is called 'cosin'; did you mean 'cosine'?",
        ),
        ("sweep: {train.lr: [0.1, 1]}", "sweep.train.lr: unknown key; valid: halving, method"),
        ("robustness: {norm: linf}", "robustness: the key 'radii' is missing"),
        (
            "robustness: {radii: 0.1, protocol: [pgf]}",
            "robustness.protocol: no attack is called 'pgf'; did you mean 'pgd'",
        ),
        ("runs: {a: {model.widths: [3]}}", "runs.a.model.widths: simple_cnn has no option 'widths'"),
        (
            "model: mlp\nruns: {a: {model.batch_norm: true}}",
            "study.yaml:2: runs.a.model.batch_norm: mlp has no option 'batch_norm'",
        ),
        (
            "runs: {a: {}}\ncontrasts: {c: {pairs: [[a, b]]}}",
            "study.yaml:2: contrasts.c.pairs.0: no run is called 'b'",
        ),
        (
            "contrasts: {c: {vary: train.lr}}",
            "contrasts.c.vary: no two runs differ in train.lr and in nothing else",
        ),
        ("study: a/b", "study: 'a/b' is not a valid folder name"),
        ("repeats: [1, 1]", "repeats: a list of seeds must hold at least one seed, and each only once"),
        ("input: {normalize: {mean: [0.5]}}", "input.normalize"),
        ("data: digits\n  model: x", "not valid YAML"),
        ("- a\n- b", "a study is a mapping"),
        ("", "a study is a mapping"),
    ],
)
def test_one_mistake_one_message(tmp_path: Path, text: str, message: str) -> None:
    assert any(message in line for line in problems(tmp_path, text)), problems(tmp_path, text)


def test_trackers_leave_names_and_contrasts_alone(tmp_path: Path) -> None:
    text = "runs: {a: {}, b: {train.lr: 0.1, track: [tensorboard]}}\ncontrasts: {c: {vary: train.lr}}"
    assert [run.config.track for run in read(tmp_path, text).variants] == [None, ["tensorboard"]]
    assert read(tmp_path, text).contrasts == [("c", "a", "b")]
    found = read(tmp_path, text, "track=[{tensorboard: {graph: false}}]", "train.epochs=1")
    assert [run.name for run in found.variants] == ["a,train.epochs=1", "b,train.epochs=1"]
    assert all(run.config.track == [{"tensorboard": {"graph": False}}] for run in found.variants)
    (problem,) = problems(tmp_path, "track: [tensorboard, tensorbord]")
    assert "study.yaml:1: track.1: no tracker is called 'tensorbord'; did you mean 'tensorboard'?" in problem


def test_dotted_paths_pass_over_the_plugins_name(tmp_path: Path) -> None:
    runs = (
        "{a: {model.batch_norm: true}, b: {model.simple_cnn.hidden: 7}, c: {model: linear}, "
        "d: {train.optimizer.weight_decay: 0.1}}"
    )
    text = "model: {simple_cnn: {channels: 4}}\nruns: " + runs
    a, b, c, d = read(tmp_path, text).variants
    assert a.config.model == {"simple_cnn": {"channels": 4, "batch_norm": True}}
    assert b.config.model == {"simple_cnn": {"channels": 4, "hidden": 7}}
    assert c.config.model == "linear"
    assert d.config.train.optimizer == {"adam": {"weight_decay": 0.1}}


def test_grid_crosses_values_and_vary_pairs_what_differs_in_one_thing(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        (
            "grid: {train.lr: [1e-3, 0.1], train.optimizer: [sgd, adam]}\n"
            "contrasts: {rate: {vary: train.lr}}\nrepeats: [3, 5]"
        ),
    )
    names = [run.name for run in found.variants]
    assert names == [
        "lr=0.001,optimizer=sgd",
        "lr=0.001,optimizer=adam",
        "lr=0.1,optimizer=sgd",
        "lr=0.1,optimizer=adam",
    ]
    assert found.contrasts == [("rate", names[0], names[2]), ("rate", names[1], names[3])]
    assert found.seeds == [3, 5]


def test_without_contrasts_every_run_is_held_against_the_first(tmp_path: Path) -> None:
    found = read(tmp_path, "runs: {a: {}, b: {train.lr: 0.1}, c: {train.lr: 0.2}}")
    assert [(a, b) for _, a, b in found.contrasts] == [("a", "b"), ("a", "c")]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 10**6),
            "batch_size": st.one_of(st.integers(1, 4096), st.just("full")),
            "lr": st.floats(1e-9, 1e3),
            "shuffle": st.booleans(),
            "clip": st.one_of(st.none(), st.floats(1e-6, 1e6)),
            "watch": st.lists(st.sampled_from(["train", "validation", "test"]), unique=True),
            "optimizer": st.sampled_from(["sgd", {"adam": {"weight_decay": 1e-4}}]),
        },
    )
)
def test_a_resolved_recipe_reads_back_as_itself(train: dict[str, object]) -> None:
    config = study_file.variant_config_from({"train": train}, Path())
    text = yaml.safe_dump(study_file.as_values(config))
    again = study_file.expand_study(yaml.safe_load(text), name="x", base=Path())
    assert again.variants[0].config == config


def test_objective_takes_the_loss_of_train(tmp_path: Path) -> None:
    train = read(tmp_path, "train: {loss: mse}").variants[0].config.train
    assert objective_of(train, tmp_path) == {"supervised": {"loss": "mse"}}
    train = read(tmp_path, "train: {objective: {supervised: {loss: mse}}}").variants[0].config.train
    assert objective_of(train, tmp_path) == {"supervised": {"loss": "mse"}}


def test_values_of_a_grid(tmp_path: Path) -> None:
    assert problems(tmp_path, "repeats: 1\nmodel: linear\ngrid: {train.lr: []}") == [
        "study.yaml:3: grid.train.lr: give at least one value"
    ]
    found = problems(tmp_path, "repeats: 1\ngrid:\n  train.lr: [0.1, 0.10, 0.2]\nruns: {a: {}, b: {}}")
    assert found == ["study.yaml:3: grid.train.lr: 0.1 is given twice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {stop: {patience: 2}, watch: [train]}", "train.watch: patience needs validation"),
        ("runs: {a: {}}\ncontrasts: {c: {pairs: [[a, a]]}}", "a is compared with itself"),
        ("runs: {'a b': {}, a_b: {}}", "another run has the same folder name"),
        ("repeats: 1000000000000", "repeats: "),
        (
            "runs: {a: {train.lr: -1}, b: {}}\ncontrasts: {c: {pairs: [[a, x]]}}",
            "no run is called 'x'; valid: a, b",
        ),
    ],
)
def test_what_a_reviewer_found(tmp_path: Path, text: str, message: str) -> None:
    found = problems(tmp_path, text)
    assert any(message in line for line in found), found
    assert not any("no run is called 'a'" in line for line in found)


def test_a_grid_over_a_plugins_options_names_each_run(tmp_path: Path) -> None:
    found = read(tmp_path, "grid: {model: [{mlp: {widths: [8]}}, {mlp: {widths: [16]}}, linear]}")
    assert len({run.name for run in found.variants}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "robustness: {radii: 0.1, certificates: [interval, smothing]}",
            "robustness.certificates.1: .*did you mean 'smoothing'",
        ),
        (
            "robustness: {radii: 0.1, surrogate: nope}",
            "robustness.surrogate: no run of the study is called 'nope'; valid: a, b",
        ),
        (
            "robustness: {radii: 0.1, protocol: [transfer]}",
            "robustness.surrogate: the attack transfer needs one",
        ),
        (
            "robustness: {radii: 0.1, protocol: [carlini_wagner]}",
            "robustness.protocol: carlini_wagner is an attack of l2, not of linf",
        ),
        (
            (
                "robustness: {radii: 0.1, surrogate: b, individual_attacks: "
                "[{transfer: {attack: carlini_wagner}}]}"
            ),
            "robustness.individual_attacks.0: carlini_wagner is an attack of l2",
        ),
    ],
)
def test_what_could_not_be_attacked_is_told_before_anything_is_trained(
    tmp_path: Path, text: str, message: str
) -> None:
    (told,) = problems(tmp_path, f"{text}\nruns: {{a: {{}}, b: {{}}}}\n")
    assert re.search(rf"study\.yaml:1: {message}", told), told


def test_a_surrogate_is_known_by_its_run_and_goes_by_its_folder(tmp_path: Path) -> None:
    text = "robustness: {radii: 0.1, norm: l2, protocol: [carlini_wagner, transfer]}\n"
    text += "runs: {a b: {robustness.protocol: fast}, c: {robustness.surrogate: a b}}\n"
    for overrides, folder in (((), "a_b"), (("train.epochs=1",), "a_b,train.epochs=1")):
        _, run = read(tmp_path, text, *overrides).variants
        assert run.config.robustness is not None
        assert run.config.robustness.surrogate == folder


def test_the_config_of_one_run_may_name_a_folder_beside_it_as_surrogate(tmp_path: Path) -> None:
    file = tmp_path / "whole" / "c" / "seed-0" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("robustness: {radii: 0.1, surrogate: a}\nruns: {c: {}}\n")
    with pytest.raises(ConfigError, match="no run of the study is called 'a'"):
        study_file.read_study(file)
    (tmp_path / "whole" / "a").mkdir()
    assert study_file.read_study(file).variants[0].config.robustness.surrogate == "a"  # type: ignore[union-attr]


def test_a_section_in_a_run_leaves_the_other_settings_of_the_section_as_they_are(tmp_path: Path) -> None:
    text = (
        "train: {epochs: 7, lr: 0.5}\nruns: {a: {train: {ema: 0.9}, model.batch_norm: true}, b: {train: {}}}"
    )
    a, b = (each.config.train for each in read(tmp_path, text).variants)
    assert (a.epochs, a.lr, a.ema) == (7, 0.5, 0.9)
    assert (b.epochs, b.lr, b.ema) == (7, 0.5, None)
    (mistake,) = problems(tmp_path, "runs:\n  a:\n    train:\n      emaa: 0.9")
    assert "study.yaml:4: runs.a.train.emaa: unknown key; did you mean" in mistake
