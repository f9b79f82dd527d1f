"""The variants that may be the best: who is left out, by whom, and what the sentence says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stresslens.comparison.best_set import best_set
from stresslens.comparison.difference import Difference, difference_of
from stresslens.comparison.schema import BestSet


def pairs_of(accuracies: dict[str, float], seeds: int = 3, images: int = 4000) -> list[Difference]:
    random = np.random.default_rng(0)
    hard = random.random(images)
    right = {
        name: (hard + 0.01 * random.standard_normal((seeds, images)) < share).astype(float)
        for name, share in accuracies.items()
    }
    return [difference_of("", a, b, right[a], right[b]) for a, b in itertools.combinations(right, 2)]


def best_of(accuracies: dict[str, float], **sizes: int) -> BestSet:
    found = best_set(list(accuracies), pairs_of(accuracies, **sizes))
    assert found is not None
    return found


def test_one_best() -> None:
    found = best_of({"a": 0.9, "b": 0.95, "c": 0.8})
    assert found.variants == ["b"]
    assert found.beaten == {"a": "b", "c": "b"}
    assert found.said == (
        "the best of the 3 variants is b: the others are shown to be worse "
        "(95 % confidence for the whole list; 3 seeds, 4000 images)"
    )


def test_some_may_be_the_best() -> None:
    found = best_of({"a": 0.95, "b": 0.951, "c": 0.8})
    assert found.variants == ["a", "b"]
    assert found.said.startswith(
        "the best of the 3 variants is one of a and b; the other is shown to be worse"
    )


def test_any_may_be_the_best_and_nothing_is_left_out_then() -> None:
    found = best_of({"a": 0.95, "b": 0.95, "c": 0.95}, images=300)
    assert found.variants == ["a", "b", "c"]
    assert found.said.startswith("any of the 3 variants may be the best: none is shown to be worse")
    assert "beaten" not in found.model_dump(exclude_unset=True)


def test_few_seeds_are_said() -> None:
    assert "2 seeds are too few to leave out more" in best_of({"a": 0.9, "b": 0.902, "c": 0.8}, seeds=2).said
    assert "so this is about these weights" in best_of({"a": 0.9, "b": 0.93, "c": 0.8}, seeds=1).said


def test_two_variants_and_a_missing_pair_have_no_set() -> None:
    assert best_set(["a", "b"], pairs_of({"a": 0.9, "b": 0.8})) is None
    assert best_set(["a", "b", "c"], pairs_of({"a": 0.9, "b": 0.8, "c": 0.7})[:2]) is None


@pytest.mark.breadth(1)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_highest_mean_is_always_in_and_order_does_not_matter(seeds: int) -> None:
    random = np.random.default_rng(4)
    for _ in range(10):
        right = {name: (random.random((seeds, 400)) < 0.9).astype(float) for name in "abcd"}
        pairs = [difference_of("", a, b, right[a], right[b]) for a, b in itertools.combinations(right, 2)]
        turned = [difference_of("", b, a, right[b], right[a]) for a, b in itertools.combinations(right, 2)]
        found, other = best_set("abcd", pairs), best_set("abcd", turned)
        assert found is not None
        assert other is not None
        assert max(right, key=lambda name: right[name].mean()) in found.variants
        assert found.variants == other.variants
