"""`ablate:` becomes runs and contrasts, its mistakes are told in words, and ingredients are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_texts import problems, read

from stresslens.config import study_file
from stresslens.config.ablation import (
    AblationRequest,
    alternatives_in_words,
    ingredient_in_words,
    kept_in_words,
    request_of,
)
from stresslens.core.errors import ConfigError

NAMED = """
data: digits
model: linear
train: {augment: [flip]}
ablate:
  smooth: {train.loss.smoothing: 0.1}
  shift: {train.augment: [{crop: {padding: 1}}]}
  turn: {train.augment: [rotation]}
"""
RECIPE = """
data: digits
model: {simple_cnn: {batch_norm: true, channels: 8}}
input: {normalize: pixel_minmax}
train:
  epochs: 3
  batch_size: 32
  lr: 0.05
  optimizer: {nesterov: {momentum: 0.8, weight_decay: 5e-4}}
  loss: {cross_entropy: {smoothing: 0.1}}
  schedule: one_cycle
  ema: 0.9
  balance: none
  augment: [flip, {crop: {padding: 1}}, {crop: {padding: 2}}]
  threads: 1
"""


def ablation(tmp_path: Path, text: str, request: AblationRequest) -> study_file.Study:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return study_file.read_study(file, ablation=request)


def refusal(tmp_path: Path, text: str, request: AblationRequest) -> str:
    with pytest.raises(ConfigError) as caught:
        ablation(tmp_path, text, request)
    return str(caught.value).replace(f"{tmp_path}/", "")


def settings(study: study_file.Study) -> dict[str, tuple[object, list[object]]]:
    return {each.name: (each.config.train.loss, each.config.train.augment) for each in study.variants}


def test_each_ingredient_is_left_out_and_added_in(tmp_path: Path) -> None:
    study = read(tmp_path, NAMED)
    smooth, shift = {"cross_entropy": {"smoothing": 0.1}}, {"crop": {"padding": 1}}
    assert settings(study) == {
        "full": (smooth, ["flip", shift, "rotation"]),
        "without_smooth": ("cross_entropy", ["flip", shift, "rotation"]),
        "without_shift": (smooth, ["flip", "rotation"]),
        "without_turn": (smooth, ["flip", shift]),
        "only_smooth": (smooth, ["flip"]),
        "only_shift": ("cross_entropy", ["flip", shift]),
        "only_turn": ("cross_entropy", ["flip", "rotation"]),
        "bare": ("cross_entropy", ["flip"]),
    }
    assert study.seeds == [0, 1, 2]
    names = ("smooth", "shift", "turn")
    assert study.contrasts == [
        *(("left out of full", f"without_{name}", "full") for name in names),
        *(("added to bare", "bare", f"only_{name}") for name in names),
        ("all together", "bare", "full"),
    ]
    assert study.ablation is not None
    assert [each.left_out for each in study.ablation.ingredients] == [(f"without_{n}", "full") for n in names]


def test_runs_of_the_same_ingredients_are_trained_once(tmp_path: Path) -> None:
    two = read(tmp_path, "ablate: {ema: {train.ema: 0.9}, clip: {train.clip: 1}}\nrepeats: 2")
    assert [each.name for each in two.variants] == ["full", "only_clip", "only_ema", "bare"]
    assert two.seeds == [0, 1]
    assert ("left out of full", "only_clip", "full") in two.contrasts
    one = read(tmp_path, "ablate: {ema: {train.ema: 0.9}}")
    assert one.contrasts == [("left out of full", "bare", "full")]


def test_what_is_without_an_ingredient_can_be_stated(tmp_path: Path) -> None:
    text = "train: {lr: 0.1}\nablate: {adam: {train.optimizer: {with: adam, without: sgd}, train.lr: 0.01}}"
    study = read(tmp_path, text)
    found = {each.name: (each.config.train.optimizer, each.config.train.lr) for each in study.variants}
    assert found == {"full": ("adam", 0.01), "bare": ("sgd", 0.1)}
    assert study.ablation is not None
    said = ingredient_in_words(study.ablation.ingredients[0])
    assert said == "train.optimizer adam (without it sgd), train.lr 0.01"


def test_one_side_or_some_ingredients_and_the_names_with_overrides(tmp_path: Path) -> None:
    left = ablation(tmp_path, NAMED, request_of(True, False, ["turn"], None))
    assert [each.name for each in left.variants] == ["full", "without_turn"]
    assert all(len(each.config.train.augment) > 1 for each in left.variants)
    added = ablation(tmp_path, NAMED, request_of(False, True, [], None))
    assert {each.name for each in added.variants} == {
        "full",
        "bare",
        *(f"only_{n}" for n in ("smooth", "shift", "turn")),
    }
    assert len(ablation(tmp_path, NAMED, request_of(True, True, [], None)).variants) == 8
    study = read(tmp_path, NAMED, "train.epochs=1")
    assert study.ablation is not None
    assert study.ablation.ingredients[0].left_out == ("without_smooth,train.epochs=1", "full,train.epochs=1")
    renamed = study_file.renamed_variants(study, {"full,train.epochs=1": "f"})
    assert renamed.ablation is not None
    assert renamed.ablation.full == "f"


def test_a_run_has_the_same_name_whichever_ingredients_are_asked_for(tmp_path: Path) -> None:
    """So that a command which asks for some of them uses the runs of one that asked for all."""
    whole = {each.name: each.config.train for each in read(tmp_path, NAMED).variants}
    for sides in ((True, False), (False, True), (True, True)):
        for names in (["turn"], ["smooth", "turn"]):
            some = ablation(tmp_path, NAMED, request_of(*sides, names, None)).variants
            assert {each.name: each.config.train for each in some}.items() <= whole.items()


def test_alternatives_are_each_added_to_the_bare_recipe(tmp_path: Path) -> None:
    text = """
ablate:
  lion: {train.optimizer: {with: {timm: {name: lion}}, without: sgd}, train.lr: 0.001}
  NAdam: {train.optimizer: {torch: {name: NAdam}}, train.lr: 0.002}
  shift: {train.augment: [{crop: {padding: 1}}]}
"""
    study = read(tmp_path, text)
    found = {each.name: (each.config.train.optimizer, each.config.train.lr) for each in study.variants}
    default = found["bare"][1]
    assert found == {
        "only_lion": ({"timm": {"name": "lion"}}, 0.001),
        "only_NAdam": ({"torch": {"name": "NAdam"}}, 0.002),
        "only_shift": ("sgd", default),
        "bare": ("sgd", default),
    }
    assert {name for name, _, _ in study.contrasts} == {"added to bare"}
    assert study.ablation is not None
    assert study.ablation.full is None
    assert alternatives_in_words(study.ablation.ingredients) == (
        "lion and NAdam set train.optimizer and train.lr: no recipe has two of them, each is added to the "
        "bare one"
    )
    some = ablation(tmp_path, text, request_of(False, True, ["NAdam"], None))
    assert [each.name for each in some.variants] == ["only_NAdam", "bare"]
    assert "Leave the option --leave-out out" in refusal(tmp_path, text, request_of(True, False, [], None))


def test_a_sweep_and_further_contrasts_may_stand_beside_it(tmp_path: Path) -> None:
    text = f"{NAMED}sweep: {{space: {{train.lr: [0.1, 0.01]}}}}\n"
    text += "contrasts: {mine: {pairs: [[bare, without smooth]], claim: it is better}}\n"
    study = read(tmp_path, text)
    assert study.sweep is not None
    assert study.contrasts[-1] == ("mine", "bare", "without_smooth")
    assert study.claims[0].pairs == [("bare", "without_smooth")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ablate: {}", "name an ingredient, as in {ema: {train.ema: 0.999}}"),
        ("ablate: {ema: 0.9}", "ablate.ema: expected its settings by dotted key"),
        ("ablate: {ema: {train.emaa: 0.9}}", "ablate.ema.train.emaa: unknown key; did you mean train.ema?"),
        ("ablate: {ema: {train.ema: 2}}", "ablate.ema.train.ema: input should be less than 1, got 2"),
        (
            "ablate: {a: {train.ema: {with: 0.9, without: 0.1}}, b: {train.ema: {with: 0.8, without: 0.2}}}",
            "a and b say different things of train.ema without them; the bare recipe has one",
        ),
        ("ablate: {a: {train.augment: flip}}", "expected a list, which is added to train.augment"),
        (
            "ablate: {a: {train.augment: [flip]}, b: {train.augment: [crp]}}",
            "ablate.b.train.augment: no augm",
        ),
        ("train: {ema: 0.9}\nablate: {ema: {train.ema: 0.9}}", "study.yaml:2: ablate.ema: changes nothing"),
        ("ablate: {a: {train.ema: {without: 0.9}}}", "says what is without it; give `with` too"),
        ("ablate: {a: {train.ema: {with: 0.9, wthout: 0.8}}}", "unknown key; did you mean 'without'?"),
        ("ablate: {a: {train.ema: 0.9}}\nruns: {x: {}}", "study.yaml:2: runs: cannot stand beside `ablate`"),
        ("ablate: {a: {train.ema: 0.9}}\ngrid: {train.lr: [1]}", "grid: cannot stand beside `ablate`"),
        ("ablate: {a: {train.ema: 0.9}}\ndata_sizes: {sizes: [9, 19]}", "data_sizes: cannot stand beside"),
        ("ablate: {a: {train.ema: 0.9}}\ncontrasts: {all together: {vary: data}}", "a contrast of this name"),
        ("ablate: {'': {train.ema: 0.9}}", "an ingredient needs a name"),
        ("ablate: auto", "ablate: no ingredient was found"),
        ("ablat: auto", "ablat: unknown key; did you mean 'ablate'?"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    (line,) = problems(tmp_path, text)[:1]
    assert said in line


def test_a_section_in_an_ingredient_leaves_the_other_settings_as_they_are(tmp_path: Path) -> None:
    text = "data: digits\nmodel: linear\ntrain: {epochs: 3}\nablate: {ema: {train: {ema: 0.9}}}\n"
    full, bare = (each.config.train for each in read(tmp_path, text).variants)
    assert (full.epochs, full.ema, bare.epochs, bare.ema) == (3, 0.9, 3, None)
    (tmp_path / "study.yaml").write_text(text)
    changed = study_file.read_study(tmp_path / "study.yaml", ["ablate.ema.train.ema=0.5"])
    assert changed.variants[0].config.train.ema == 0.5


def test_one_mistake_is_told_once(tmp_path: Path) -> None:
    assert refusal(tmp_path, "ablate: [ema]", AblationRequest()).count("ablate:") == 1
    said = refusal(tmp_path, NAMED, AblationRequest(variant="x"))
    assert "--variant x: the recipe is that of the file, which has no `runs`; leave the option out" in said


def test_ingredients_are_found_in_the_recipe(tmp_path: Path) -> None:
    study = ablation(tmp_path, RECIPE, AblationRequest())
    assert study.name == "study-ablation"
    assert study.ablation is not None
    assert {each.name: each.with_it for each in study.ablation.ingredients} == {
        "weight decay": {"train.optimizer.weight_decay": 0.0005},
        "nesterov": {"train.optimizer": {"nesterov": {"momentum": 0.8}}, "train.lr": 0.05},
        "label smoothing": {"train.loss.smoothing": 0.1},
        "one_cycle": {"train.schedule": "one_cycle"},
        "ema": {"train.ema": 0.9},
        "flip": {"train.augment": ["flip"]},
        "crop": {"train.augment": [{"crop": {"padding": 1}}]},
        "crop 2": {"train.augment": [{"crop": {"padding": 2}}]},
        "batch norm": {"model.batch_norm": True},
        "normalize": {"input.normalize": "pixel_minmax"},
    }
    assert list(study.ablation.kept) == ["train.epochs", "train.batch_size", "model.channels"]
    assert kept_in_words(study.ablation.kept).startswith("in all runs: train.epochs (how long is trained); ")
    of = {each.name: each.config for each in study.variants}
    plain = study_file.expand_study({"train": {"epochs": 3, "batch_size": 32}}, name="x", base=tmp_path)
    bare, default = of["bare"].train, plain.variants[0].config.train
    assert (bare.lr, bare.schedule, bare.ema, bare.augment) == (0.001, "constant", None, [])
    assert bare.optimizer == {"adam": {"weight_decay": 0.0}}
    assert (bare.epochs, bare.batch_size) == (default.epochs, default.batch_size)
    assert of["full"] == study_file.read_study(tmp_path / "study.yaml").variants[0].config
    assert of["without_weight_decay"].train.optimizer == {"nesterov": {"momentum": 0.8, "weight_decay": 0.0}}


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        ("{timm: {name: lion, weight_decay: 0.05}}", ["weight decay", "lion"]),
        ("{torch: {name: NAdam, options: {momentum_decay: 0.01}}}", ["NAdam"]),
        ("torch.optim:RAdam", ["RAdam"]),
    ],
)
def test_an_optimizer_of_a_library_is_called_by_its_own_name(
    tmp_path: Path, optimizer: str, names: list[str]
) -> None:
    text = f"data: digits\nmodel: linear\ntrain: {{optimizer: {optimizer}}}\n"
    study = ablation(tmp_path, text, AblationRequest())
    assert study.ablation is not None
    assert [each.name for each in study.ablation.ingredients] == names
    said = ingredient_in_words(study.ablation.ingredients[-1])
    assert said.startswith("train.optimizer ")
    assert {each.name for each in study.variants} >= {"full", "bare"}


def test_found_ingredients_are_chosen_by_name_or_by_the_key_of_another_setting(tmp_path: Path) -> None:
    study = ablation(tmp_path, RECIPE, AblationRequest(ingredients=["ema", "train.batch_size"]))
    found = {each.name: (each.config.train.ema, each.config.train.batch_size) for each in study.variants}
    assert found == {
        "full": (0.9, 32),
        "without_ema": (None, 32),
        "without_train.batch_size": (0.9, 64),
        "without_ema_and_train.batch_size": (None, 64),
    }
    assert study.ablation is not None
    assert study.ablation.kept["flip"] == "not asked for"
    assert "--ingredient emma: no ingredient has this name; did you mean 'ema'?" in refusal(
        tmp_path, RECIPE, AblationRequest(ingredients=["emma"])
    )


def test_of_a_file_with_runs_one_is_the_recipe(tmp_path: Path) -> None:
    text = "runs: {plain: {}, rich run: {train.ema: 0.9, model.batch_norm: true}}\n"
    text += "contrasts: {a: {vary: train.ema}}"
    study = ablation(tmp_path, text, AblationRequest(variant="rich run"))
    assert study.name == "study-rich_run-ablation"
    assert [each.name for each in study.variants] == ["full", "only_batch_norm", "only_ema", "bare"]
    assert "runs: which is the recipe? give --variant: plain, rich run" in refusal(
        tmp_path, text, AblationRequest()
    )
    assert "--variant rich: no run of the study has this name; did you mean 'rich run'?" in refusal(
        tmp_path, text, AblationRequest(variant="rich")
    )
    assert "no ingredient was found" in refusal(tmp_path, text, AblationRequest(variant="plain"))


def test_settings_that_cannot_be_read_are_left_to_the_validation(tmp_path: Path) -> None:
    text = "train: {ema: 0.9, augment: [3], optimizer: 4, loss: [mse]}\nmodel: {nope: {x: 1}}\nablate: auto"
    said = "\n".join(problems(tmp_path, text))
    assert "train.optimizer" in said
    assert "did you mean" in said or "no model is called 'nope'" in said
