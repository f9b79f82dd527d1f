"""Names of folders and short names of variants."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stresslens.config.run_names import (
    LONGEST,
    READABLE,
    data_and_model,
    folder_name,
    label,
    name_in_words,
    names_in,
    short_names,
)

PAIRS = st.lists(st.text(min_size=1, max_size=60).map(lambda text: f"key={text}"), max_size=8)


@given(st.text(min_size=1, max_size=300), PAIRS)
def test_a_folder_has_a_short_name_that_every_file_system_takes(name: str, overrides: list[str]) -> None:
    found = folder_name(name, overrides)
    assert len(found.encode()) <= LONGEST
    assert re.fullmatch(r"[\w,=+-][\w.,=+-]*", found)
    assert folder_name(name, overrides) == found


@given(PAIRS, PAIRS)
def test_other_overrides_are_other_folders(some: list[str], others: list[str]) -> None:
    if ",".join(some) != ",".join(others):
        assert folder_name("run", some) != folder_name("run", others)


def test_names_are_those_of_earlier_versions_where_they_are_short_and_safe() -> None:
    assert folder_name("mlp") == "mlp"
    assert folder_name("mlp", ["train.epochs=1", "train.lr=0.1"]) == "mlp,train.epochs=1,train.lr=0.1"
    assert folder_name("batch norm") == "batch_norm"


def test_labels_of_commands() -> None:
    assert data_and_model("digits", "mlp") == ["digits", "mlp"]
    assert data_and_model({"folder": {"path": "photos"}}, "mlp")[0] == "photos"
    here, there = (data_and_model({"folder": {"path": path}}, "mlp")[0] for path in ("a/photos", "b/photos"))
    assert here != there
    assert here.startswith("photos-")
    assert data_and_model({"folder": {"path": "digits"}}, "mlp")[0] != "digits"
    assert label({"mlp": {"widths": [4]}}) != label({"mlp": {"widths": [4, 4]}})
    assert label({"a": {"x": 1, "y": 2}}).startswith("a_x-1_y-2-")


def test_what_all_share_is_said_once() -> None:
    overrides = ["train.epochs=1", "model.widths=[8, 8]"]
    folders = {name: folder_name(name, overrides) for name in ("sgd", "adam")}
    short = short_names(
        list(folders.values()),
        {folder: name for name, folder in folders.items()},
        dict.fromkeys(folders.values(), overrides),
    )
    assert short.shared == overrides
    assert list(short.names.values()) == ["sgd", "adam"]


def test_what_differs_stays_in_the_name() -> None:
    names = ["mlp,train.epochs=1,train.lr=0.1", "mlp,train.epochs=2,train.lr=0.1"]
    short = short_names(names, dict.fromkeys(names, "mlp"))
    assert short.shared == ["train.lr=0.1"]
    assert list(short.names.values()) == ["mlp epochs=1", "mlp epochs=2"]


@pytest.mark.parametrize("known", [True, False])
def test_a_study_without_overrides_keeps_its_names(known: bool) -> None:
    names = ["sgd", "adam,lr=0.1", "size=600"]
    short = short_names(names, dict(zip(names, names)) if known else {})
    assert list(short.names.values()) == names
    assert short.replaced({"sgd": ["sgd is better"]}) == {"sgd": ["sgd is better"]}


def test_long_names_of_a_grid_give_their_values() -> None:
    names = [f"optimizer={o},lr={lr},batch_size=64,schedule=cosine" for o in ("sgd", "adam") for lr in (1, 2)]
    short = short_names(names, dict(zip(names, names)))
    assert next(iter(short.names.values())) == "sgd, 1, 64, cosine"
    assert short.keys == ["optimizer", "lr", "batch_size", "schedule"]


def test_names_that_no_grid_made_keep_their_keys() -> None:
    names = {f"folder{lr}": f"digits mlp epochs=12 lr={lr} batch_size=64" for lr in (0.1, 0.01)}
    short = short_names(list(names), names, {name: [] for name in names})
    assert list(short.names.values()) == list(names.values())
    assert (short.keys, short.shared) == ([], [])


def test_a_folder_called_by_its_own_name_leaves_its_overrides_out() -> None:
    assert short_names(["mine"], {"mine": "mine"}, {"mine": ["train.lr=0.1"]}).names == {"mine": "mine"}


def test_a_name_does_not_depend_on_other_variants_where_it_is_cut() -> None:
    long = "digits mlp widths=[64, 64] optimizer=adam schedule=cosine epochs=12 lr=0.01"
    alone = short_names(["x"], {"x": long}, {"x": []}).names["x"]
    assert re.fullmatch(r"digits mlp widths=\[64, … epochs=12 lr=0.01 #[0-9a-f]{6}", alone)
    both = short_names(["y", "x"], {"x": long, "y": long}, {"x": [], "y": []}).names
    assert both["x"] == alone != both["y"]


def test_names_in_words() -> None:
    data, model = {"folder": {"path": "my/photos"}}, {"mlp": {"widths": [32, 16]}}
    assert name_in_words(data, model, ["train.lr=0.1"]) == "photos mlp widths=[32, 16] lr=0.1"
    assert name_in_words({"digits": {"subset": 100}}, "knn", []) == "digits subset=100 knn"


@given(st.lists(st.text("ab,=.1", min_size=1, max_size=60), min_size=1, max_size=12, unique=True))
def test_short_names_are_short_and_differ(names: list[str]) -> None:
    short = short_names(names, dict(zip(names, names)), {name: [] for name in names})
    assert len(set(short.names.values())) == len(names)
    assert max(map(len, short.names.values())) <= READABLE


def test_names_in_sentences_are_replaced_whole() -> None:
    names = ["mlp,train.lr=0.1", "mlp,train.lr=0.15", "mlp,train.lr=0.1,train.epochs=2"]
    short = short_names(names, dict.fromkeys(names, "mlp"))
    said = "mlp,train.lr=0.15 is better than mlp,train.lr=0.1, and mlp,train.lr=0.1,train.epochs=2."
    expected = "mlp lr=0.15 is better than mlp lr=0.1, and mlp lr=0.1 epochs=2."
    assert short.replaced([said, {names[0]: (1, said)}]) == [expected, {"mlp lr=0.1": [1, expected]}]


def test_names_in_a_sentence_are_whole() -> None:
    names = ["mlp", "mlp lr=0.1", "cnn"]
    assert names_in("mlp lr=0.1 is better than cnn_wide by 2 points", names) == {"mlp lr=0.1"}
    assert names_in("highest accuracy: mlp, 97.0 %; cnn is equal", names) == {"mlp", "cnn"}
