"""The section on how fast recipes learn against each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from markupsafe import escape

from stresslens.comparison.schema import ComparisonFile
from stresslens.report.convergence import MOST, convergence_section


def pair(a: str, b: str, epochs: list[int], seeds: int = 3) -> dict[str, Any]:
    figure = {
        "value": 0.1,
        "low": 0.05,
        "high": 0.15,
        "n": seeds,
        "method": "t",
        "level": 0.95,
        "unit": "seeds",
    }
    return {
        "a": a,
        "b": b,
        "seeds": seeds,
        "epochs": [{"epoch": e, "difference": figure} for e in epochs],
        "said": f"{b} starts",
    }


def study(*pairs: dict[str, Any]) -> Any:
    return SimpleNamespace(comparison=ComparisonFile.model_validate({"pace": list(pairs)}))


def test_epochs_or_shares_where_trainings_differ_in_length() -> None:
    same = convergence_section(study(pair("a", "b", [1, 5, 10]), pair("a", "c", [1, 8])))
    assert same is not None
    assert ">epoch<" in escape(same.chart)
    assert escape(same.chart).count('class="band') == 2
    apart = convergence_section(study(pair("a", "b", [1, 5, 10]), pair("a", "c", [100, 800])))
    assert apart is not None
    assert "share of the training, %" in escape(apart.chart)


def test_two_seeds_have_no_band_and_many_pairs_are_counted() -> None:
    found = convergence_section(study(*[pair("a", f"b{k}", [1, 2], seeds=2) for k in range(MOST + 3)]))
    assert found is not None
    assert 'class="band' not in escape(found.chart)
    assert found.left_out == 3
    assert len(found.said) == MOST


def test_nothing_without_pairs() -> None:
    assert convergence_section(study()) is None
    assert convergence_section(SimpleNamespace(comparison=None)) is None  # type: ignore[arg-type]
