"""Any text as an attack, a protocol, a radius, a model or a data set gives a result or one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import FEW, MANY, answer, trained_run

from stresslens.core.errors import ConfigError
from stresslens.robustness import attack_run

VALUES = [
    *(
        "",
        " ",
        "x",
        "~",
        "-",
        "--",
        "/",
        "..",
        "null",
        "true",
        "0",
        "-1",
        "1e999",
        "nan",
        "9" * 5000,
        "8/255",
    ),
    *(
        "8/0",
        "1/" + "9" * 400,
        "9" * 400 + "/1",
        "0:1:0",
        "0:1:1e-9",
        "1:0:0.1",
        "0:1",
        "::",
        "0,1",
        "0,,1",
        ",",
    ),
    *("0:1e300:1e-300", "nan:1:0.1", "0:inf:1", "2/255, 8/255", "٣", "1_0", "0x10", "8/255/2", "(1)"),
    *("a" * 5000, "é" * 300, "\x1b[31mred\x1b[0m", "\x9b2J", "\u202eevil", "line\nbreak", "\x07", "\udcff"),
    *("pgd", "pgd ", "PGD", "pdg", "fast", "none", "[]", "[[]]", "[pgd", "{", "}", "[pgd, pgd]", "[pgd, 3]"),
    *("{pgd: {steps: 0}}", "{pgd: {steps: 1e9}}", "{pgd: {steps: x}}", "{pgd: {step: 3}}", "{pgd: [1]}"),
    *("{pgd: {}, fgsm: {}}", "{pgd: {step_size: nan}}", "{transfer: {attack: pgd}}", "{3: {}}", "{null: {}}"),
    *(
        "[{pgd: {steps: 40}}]",
        "[fgsm]",
        "&a [*a]",
        "*a",
        "!!python/object/apply:os.getcwd []",
        "a: b: c",
        "- x",
    ),
    *("mlp", "{mlp: {widths: []}}", "{mlp: {widths: [0]}}", "{mlp: {widths: [-3]}}", "{mlp: {widths: 3}}"),
    *(
        "{mlp: {widths: [1e30]}}",
        "{mlp: 3}",
        "{mlp: null}",
        "{timm: {}}",
        "{timm: {name: x}}",
        "knn",
        "{knn: {k: 0}}",
    ),
    *(
        "{timm: {name: ''}}",
        "{torchvision: {name: resnet}}",
        "{openclip: {name: 3}}",
        "none.py:f",
        "os:getcwd",
    ),
    *(
        ":",
        ".py:",
        "a:b",
        "x.y.z:f",
        "..:f",
        "/etc/passwd",
        "/etc/passwd:f",
        "/dev/null",
        ".",
        "~",
        "%s{}",
        "{}",
    ),
    *(
        "digits",
        "{digits: {subset: 0}}",
        "{digits: {subset: -1}}",
        "{mnist: {validation: x}}",
        "{folder: {}}",
    ),
    *("{folder: {path: ''}}", '{folder: {path: "\\0"}}', "{folder: {path: 3}}", "[" * 3000, "{a: " * 500),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is right is not attacked with: a protocol may be as long as its author likes."""

    def accepted(*_: Any, **__: Any) -> None:
        raise ConfigError("accepted")

    monkeypatch.setattr(attack_run, "attack_run", accepted)


@st.composite
def texts(draw: Any) -> str:
    value = str(draw(st.sampled_from(VALUES)))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(value)))
        piece = draw(st.sampled_from([*VALUES[:60], "[", "]", "{", ": ", ", ", "'", '"', "#", "\t", "\0"]))
        value = value[:place] + str(piece)[:50] + value[place:]
    return value.replace("\0", "")  # no argument of a command can hold it


OPTIONS = [
    *("--radii", "--protocol", "--individual-attack", "--certificate", "--images", "--target", "--norm"),
    *("--split", "--success", "--eot-samples", "--bpda", "--fail-under", "--surrogate", "--device"),
]


def of_attack(run: Path, option: str, text: str) -> None:
    radii = [] if option == "--radii" else ["--radii=8/255"]
    answer("attack", str(run), *radii, f"{option}={text}")


def of_train(folder: Path, model: str, data: str) -> None:
    answer("train", "--dry-run", "--out", str(folder), "--", data, model)


@FEW
@given(option=st.sampled_from(OPTIONS), text=texts())
def test_any_text_as_an_option_of_attack(run: Path, quick: None, option: str, text: str) -> None:
    of_attack(run, option, text)


@FEW
@given(model=texts())
def test_any_text_as_a_model(tmp_path: Path, model: str) -> None:
    of_train(tmp_path, model, "digits")


@FEW
@given(data=texts())
def test_any_text_as_a_data_set(tmp_path: Path, data: str) -> None:
    of_train(tmp_path, "linear", data)


@pytest.mark.slow
@settings(MANY, max_examples=1500)
@given(option=st.sampled_from(OPTIONS), text=texts())
def test_many_texts_as_options_of_attack(run: Path, quick: None, option: str, text: str) -> None:
    of_attack(run, option, text)


@pytest.mark.slow
@MANY
@given(model=texts(), data=texts(), which=st.booleans())
def test_many_texts_as_a_model_or_a_data_set(tmp_path: Path, model: str, data: str, which: bool) -> None:
    of_train(tmp_path, *((model, "digits") if which else ("linear", data)))
