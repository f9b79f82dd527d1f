from __future__ import annotations

from stresslens.config.contrasts import ContrastSection, differ_only, pairs_of
from stresslens.core.errors import Problem

RECIPES = {
    "a": {"model": "simple_cnn", "train": {"lr": 0.1}},
    "b": {"model": {"simple_cnn": {"batch_norm": True}}, "train": {"lr": 0.1}},
    "c": {"model": {"simple_cnn": {"batch_norm": True}}, "train": {"lr": 0.2}},
}


def test_one_setting_alone_differs_also_inside_a_plugins_options() -> None:
    a, b, c = RECIPES.values()
    assert differ_only(a, b, "model.batch_norm")
    assert differ_only(b, c, "train.lr")
    assert not differ_only(a, c, "train.lr")
    assert not differ_only(a, a, "train.lr")
    assert not differ_only(a, b, "train.lr.x")
    assert a == {"model": "simple_cnn", "train": {"lr": 0.1}}


def test_pairs_by_name_by_setting_or_against_the_first() -> None:
    found: list[Problem] = []
    names = ["first", "second", "third"]
    named = pairs_of({"x": ContrastSection(pairs=[("third", "first")])}, RECIPES, names, found)
    assert named == [("x", "c", "a")]
    assert pairs_of({"rate": ContrastSection(vary="train.lr")}, RECIPES, names, found) == [("rate", "b", "c")]
    assert pairs_of({}, RECIPES, names, found) == [
        ("against the first run", "a", "b"),
        ("against the first run", "a", "c"),
    ]
    assert pairs_of({}, {}, [], found) == []
    assert not found


def test_every_mistake_is_told() -> None:
    found: list[Problem] = []
    contrasts = {
        "both": ContrastSection(pairs=[("a", "x"), ("b", "b")], vary="train.lr"),
        "neither": ContrastSection(),
    }
    pairs_of(contrasts, RECIPES, list(RECIPES), found)
    assert [(p.path, p.message) for p in found] == [
        (("contrasts", "both"), "give either pairs or vary"),
        (("contrasts", "both", "pairs", 0), "no run is called 'x'; valid: a, b, c"),
        (("contrasts", "both", "pairs", 1), "b is compared with itself"),
        (("contrasts", "neither"), "give either pairs or vary"),
    ]
    found.clear()
    pairs_of({"none": ContrastSection(vary="train.epochs")}, RECIPES, list(RECIPES), found)
    assert "no two runs differ in train.epochs" in found[0].message
