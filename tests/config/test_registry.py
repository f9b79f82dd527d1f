"""Name → function: what is found, what is refused and how helpfully; and the contract of every
plug-in's signature."""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from own_files import write
from torch import nn

from stresslens.config import registry
from stresslens.config.published_weights import initial_weights
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, Notice, Problems
from stresslens.core.pretrained import WeightsRef
from stresslens.core.types import Step

EVERY = [
    pytest.param(folder, name, id=f"{folder}-{name}")
    for folder in registry.VOCABULARY
    for name in registry.names(folder)
]


# --- the contract of every plug-in --------------------------------------------------------------------------


@pytest.mark.parametrize("folder", registry.VOCABULARY)
def test_every_folder_has_plugins(folder: str) -> None:
    assert registry.names(folder)
    assert not [name for name in registry.names(folder) if name.startswith("_")]


@pytest.mark.parametrize(("folder", "name"), EVERY)
def test_a_plugin_is_a_documented_function_named_as_its_file(folder: str, name: str) -> None:
    function = registry.plugin(folder, name)
    assert inspect.isfunction(function)
    assert function.__name__ == name
    assert function.__module__ == f"stresslens.plugins.{folder}.{name}"
    assert (inspect.getdoc(function) or "").strip().endswith((".", ")"))


NEEDED = {
    ("datasets", "folder"): {"path": "pictures"},
    ("datasets", "huggingface"): {"path": "set.parquet"},
    ("datasets", "webdataset"): {"path": "shards/*.tar"},
    ("datasets", "npz"): {"path": "set.npz"},
    ("datasets", "torchvision"): {"name": "FashionMNIST"},
    ("models", "torchvision"): {"name": "resnet18"},
    ("models", "timm"): {"name": "resnet18"},
    ("models", "ensemble"): {"runs": "cnn"},
    ("models", "soup"): {"runs": "cnn"},
    ("objectives", "distillation"): {"run": "teacher"},
    ("optimizers", "timm"): {"name": "lion"},
    ("optimizers", "torch"): {"name": "NAdam"},
    ("models", "http"): {"url": "http://127.0.0.1/"},
    ("models", "onnx"): {"file": "net.onnx"},
    ("models", "sklearn"): {"file": "fitted.joblib"},
    ("models", "torch_export"): {"file": "net.pt2"},
    ("models", "torchscript"): {"file": "net.pt"},
    ("models", "transformers"): {"name": "google/vit-base-patch16-224"},
}
"""Options without a default."""


@pytest.mark.parametrize(("folder", "name"), EVERY)
def test_a_plugin_asks_for_its_folders_words_and_its_options_are_annotated(folder: str, name: str) -> None:
    function = registry.plugin(folder, name)
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        assert parameter.name in hints, f"{parameter.name} has no annotation"
        if parameter.kind == parameter.POSITIONAL_OR_KEYWORD:
            assert parameter.name in registry.VOCABULARY[folder]
            assert parameter.default is parameter.empty
        else:
            needed = parameter.name in NEEDED.get((folder, name), {})
            assert needed or parameter.default is not parameter.empty, f"{parameter.name} has no default"
    assert "return" in hints


@pytest.mark.parametrize(("folder", "name"), EVERY)
def test_a_plugins_defaults_pass_its_own_checks(folder: str, name: str) -> None:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    if name == "transformers":
        pytest.importorskip("transformers")
    given = NEEDED.get((folder, name), {})
    options = registry.options_of(registry.plugin(folder, name))
    defaults = {option: given.get(option, plain(p.default)) for option, p in options.items()}
    bound = registry.resolve(folder, {name: defaults})
    assert set(bound.options) == set(defaults)


NUMBERS = {
    (folder, name): numbers
    for folder in registry.VOCABULARY
    if folder != "datasets"  # theirs depend on how many images there are: tests/contracts/test_datasets.py
    for name in registry.names(folder)
    if (
        numbers := [
            option
            for option, parameter in registry.options_of(registry.plugin(folder, name)).items()
            if type(parameter.default) in (int, float)
        ]
    )
}
"""The options of each plug-in whose defaults are numbers."""
NO_NUMBERS = ("1", None, True, [1], float("nan"), float("inf"))


def answer(folder: str, name: str, option: str, value: Any) -> str:
    """What a plug-in says of an option's value; of one that it takes, only that."""
    try:
        registry.resolve(folder, {name: {option: value}})
    except Problems as refused:
        return str(refused)
    return "taken"


@pytest.mark.parametrize(("folder", "name"), NUMBERS)
def test_a_number_that_makes_no_sense_is_refused_where_it_is_written(folder: str, name: str) -> None:
    """No number of any plug-in may be -1; one that may would be the first, and can say so here."""
    told = {option: answer(folder, name, option, -1) for option in NUMBERS[folder, name]}
    assert [option for option, text in told.items() if not re.search(f"{name}.{option}: ", text)] == [], told


@pytest.mark.parametrize(("folder", "name"), NUMBERS)
def test_a_number_is_a_number(folder: str, name: str) -> None:
    told = {
        (option, repr(value)): answer(folder, name, option, value)
        for option in NUMBERS[folder, name]
        for value in NO_NUMBERS
    }
    wrong = [case for case, text in told.items() if not re.search(f"{name}.{case[0]}: .*got ", text)]
    assert wrong == [], told


# --- names and options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name", "says"),
    [
        (
            "optimizers",
            "adma",
            "no optimizer is called 'adma'; did you mean 'adam'\\? valid: adam, adamw, .*sgd",
        ),
        ("losses", "cross_entropi", "no loss is called .* did you mean 'cross_entropy'\\?"),
        ("models", "zzz", "no model is called 'zzz'; valid: .*lenet"),
        (
            "models",
            "resnet18",
            r"it is a model of timm and torchvision: write \{torchvision: \{name: resnet18\}\}, on the "
            r"command line in quotes; `stresslens list models resnet18` shows its published weights$",
        ),
        ("models", "__init__", "no model is called"),
        ("models", "../find", "no model is called"),
        ("models", "", "no model is called ''"),
    ],
)
def test_an_unknown_name_is_answered_with_the_valid_ones(folder: str, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        registry.plugin(folder, name)
    with pytest.raises(Problems, match=says) as caught:
        registry.resolve(folder, name, path=("train", "x"))
    assert caught.value.problems[0].path == ("train", "x")


def test_every_wrong_option_is_told_at_its_place() -> None:
    with pytest.raises(Problems) as caught:
        registry.resolve(
            "models", {"simple_cnn": {"batchnorm": True, "hidden": 0, "channels": "many"}}, path=("model",)
        )
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found.keys() == {("model", "simple_cnn", option) for option in ("batchnorm", "hidden", "channels")}
    assert found["model", "simple_cnn", "batchnorm"].startswith(
        "simple_cnn has no option 'batchnorm'; did you mean 'batch_norm'?"
    )
    assert "greater than or equal to 1" in found["model", "simple_cnn", "hidden"]
    assert found["model", "simple_cnn", "channels"].endswith("got 'many'")


def test_what_the_program_supplies_is_not_an_option() -> None:
    with pytest.raises(Problems, match="adam has no option 'lr'"):
        registry.resolve("optimizers", {"adam": {"lr": 0.1}})


@pytest.mark.parametrize(
    "value", [None, 3, ["adam"], {}, {"adam": {}, "sgd": {}}, {"adam": 3}, {1: {}}], ids=repr
)
def test_a_plugin_is_a_name_or_one_name_with_options(value: Any) -> None:
    with pytest.raises(Problems, match=r"expected the name of an optimizer, or one name with its options"):
        registry.resolve("optimizers", value)


@pytest.mark.parametrize("value", ["adam", {"adam": {}}, {"adam": None}])
def test_the_ways_to_write_a_plugin_without_options(value: Any) -> None:
    bound = registry.resolve("optimizers", value)
    assert bound.function is registry.plugin("optimizers", "adam")
    assert dict(bound.options) == {}


def test_a_bound_plugin_takes_what_it_asks_for_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, "own.py", "def own(classes, shape, *, times: int = 1): return (classes, shape) * times")
    bound = registry.resolve("models", {"own.py:own": {"times": 2}}, base=tmp_path)
    assert bound(shape="shape", classes="classes", names="names", train="train") == (
        "classes",
        "shape",
        "classes",
        "shape",
    )
    assert bound.asks_for("shape")
    assert not bound.asks_for("train")


@pytest.mark.parametrize("folder", [folder for folder, words in registry.VOCABULARY.items() if words])
def test_a_need_that_is_not_given_is_none_and_an_unknown_one_is_refused(folder: str, tmp_path: Path) -> None:
    words = registry.VOCABULARY[folder]
    write(tmp_path, "own.py", f"def own({', '.join(words)}): return ({', '.join(words)},)")
    bound = registry.resolve(folder, "own.py:own", base=tmp_path)
    assert bound() == (None,) * len(words)
    assert bound(**{words[-1]: 3}) == (*(None,) * (len(words) - 1), 3)
    with pytest.raises(TypeError, match=f"{words[0]}.*by keyword, and not with wrods"):
        bound(wrods=1)


@pytest.mark.parametrize("folder", registry.POSITIONS_IN_0_1_0)
def test_a_new_word_in_the_middle_of_a_vocabulary_breaks_no_call(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, words = registry.POSITIONS_IN_0_1_0[folder], registry.VOCABULARY[folder]
    monkeypatch.setitem(registry.VOCABULARY, folder, (words[0], "criterion", *words[1:]))
    write(tmp_path, "own.py", f"def own({', '.join(old)}): return ({', '.join(old)},)")
    bound = registry.resolve(folder, "own.py:own", base=tmp_path)
    assert bound(**dict(zip(old, range(len(old))))) == tuple(range(len(old)))
    registry._warn_of_positions.cache_clear()
    with pytest.warns(Notice, match="is called by position here"):
        assert bound(*range(len(old))) == tuple(range(len(old)))
    write(tmp_path, "new.py", "def new(criterion): return criterion")
    assert registry.resolve(folder, "new.py:new", base=tmp_path)(criterion="a new word") == "a new word"


def test_an_objective_of_0_1_0_that_calls_its_attack_by_position_works_with_one_notice(
    tmp_path: Path,
) -> None:
    text = """
    from stresslens.core.attack_base import unwatched
    from stresslens.core.ball import Ball
    from stresslens.core.types import Attack, Loss

    def mine(model, x, y, step, *, attack: Attack = "fgsm", loss: Loss = "cross_entropy"):
        x_adv = attack(model, x, y, Ball("linf", 0.1), step.draws, unwatched, None, None, None)
        return loss(logits=model(x_adv), y=y)
    """
    write(tmp_path, "mine.py", text)
    bound = registry.resolve("objectives", "mine.py:mine", base=tmp_path)
    x, y = torch.rand(4, 1, 2, 2), torch.arange(4) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    needs = {"model": model, "x": x, "y": y, "step": Step(Draws(0, torch.arange(4)), 0, 0.0, {})}
    registry._warn_of_positions.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        losses = [float(bound(**needs).detach()) for _ in range(3)]
    assert [each.category for each in told] == [Notice]
    assert "model=model, x=x, y=y, ball=ball" in str(told[0].message)
    assert told[0].filename == str(tmp_path / "mine.py")
    ours = registry.resolve("objectives", {"adversarial": {"attack": "fgsm", "eps": 0.1}})
    assert losses == [float(ours(**needs).detach())] * 3
    with pytest.raises(TypeError, match="not with 10 positions"):
        bound.options["attack"](*range(10))


def test_a_model_is_never_called_by_position() -> None:
    with pytest.raises(TypeError, match="a model is called by keyword, and not with 4 positions"):
        registry.resolve("models", "linear")((1, 2, 2), 3, (), None)


# --- nested plug-ins ----------------------------------------------------------------------------------------


def test_a_nested_plugin_is_resolved_by_its_annotation() -> None:
    bound = registry.resolve("schedules", {"warmup": {"then": {"step": {"every": 2}}}})
    nested = bound.options["then"]
    assert nested.function is registry.plugin("schedules", "step")
    assert nested.options == {"every": 2}


def test_a_nested_default_is_resolved_too() -> None:
    assert registry.resolve("schedules", "warmup").options["then"].function is registry.plugin(
        "schedules", "cosine"
    )
    objective = registry.resolve("objectives", "supervised")
    assert objective.options["loss"].function is registry.plugin("losses", "cross_entropy")


@pytest.mark.parametrize("annotation", ["Loss", "PluginOption[Loss]"])
def test_a_nested_plugin_is_known_by_either_annotation(tmp_path: Path, annotation: str) -> None:
    text = f"""
    from stresslens.plugins import Loss, PluginOption

    def mine(net, inputs, y, *, loss: {annotation} = "mse", other: {annotation}): return loss, other
    """
    write(tmp_path, "mine.py", text)
    bound = registry.resolve("objectives", {"mine.py:mine": {"other": "cross_entropy"}}, base=tmp_path)
    assert [each.function.__name__ for each in bound()] == ["mse", "cross_entropy"]


def test_a_mistake_in_a_nested_plugin_is_told_at_its_place() -> None:
    with pytest.raises(Problems) as caught:
        registry.resolve(
            "schedules", {"warmup": {"then": {"step": {"evry": 2}}, "share": 2.0}}, path=("train", "schedule")
        )
    assert {problem.path for problem in caught.value.problems} == {
        ("train", "schedule", "warmup", "then", "step", "evry"),
        ("train", "schedule", "warmup", "share"),
    }


# --- weights ------------------------------------------------------------------------------------------------


def test_a_model_takes_its_own_options_and_those_of_the_weights_it_publishes() -> None:
    bound = registry.resolve(
        "models", {"torchvision": {"name": "resnet18", "weights": "DEFAULT", "stem": "small"}}
    )
    assert set(bound.options) == {"name", "stem"}
    publish = initial_weights({"torchvision": {"name": "resnet18", "weights": "DEFAULT", "stem": "small"}})
    assert isinstance(publish, registry.Bound)
    assert dict(publish.options) == {"name": "resnet18", "weights": "DEFAULT"}
    assert initial_weights("mlp") is None
    origin = initial_weights({"mlp": {"weights": {"run": "first", "head": "new"}}})
    assert isinstance(origin, WeightsRef)
    assert (origin.run, origin.file, origin.head) == ("first", None, "new")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mlp": {"weights": "IMAGENET1K_V2"}}, "mlp takes no weights by a name; give those of a run"),
        ({"mlp": {"weights": {"run": "a", "file": "b"}}}, "give either a run or a file"),
        ({"mlp": {"weights": {}}}, "give either a run or a file"),
        ({"mlp": {"weights": {"rum": "a"}}}, "unexpected keyword argument"),
        ({"timm": {"name": "resnet18", "weights": "x"}}, "{file: PATH}, or pretrained: true"),
    ],
    ids=str,
)
def test_weights_that_cannot_be_meant_are_told(value: Any, message: str) -> None:
    with pytest.raises(Problems) as caught:
        registry.resolve("models", value)
    assert message in caught.value.problems[0].message
