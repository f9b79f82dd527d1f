"""Several studies of the same variants: averages, a new data set, leaving one out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import stresslens as sl
from stresslens.comparison.data_sets import compare_data_sets
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_json
from stresslens.core.run_folder import RunFolder

Type = Callable[..., tuple[int, str, str]]


def make_study(
    folder: Path,
    accuracies: dict[str, float],
    *,
    data: str = "",
    seeds: int = 3,
    contrasts: list[tuple[str, str, str]] | None = None,
    images: int = 2000,
) -> Path:
    random = np.random.default_rng(len(folder.name))
    hard, first = random.random(images), next(iter(accuracies))
    for run, share in accuracies.items():
        for seed in range(seeds):
            right = hard + 0.01 * random.standard_normal(images) < share
            path = RunFolder(folder / run / f"seed-{seed}")
            path.predictions("test").parent.mkdir(parents=True)
            truth = np.arange(images) % 3
            scores = np.eye(3)[np.where(right, truth, (truth + 1) % 3)]
            np.savez(
                path.predictions("test"), scores=scores, labels=truth, index=np.arange(images), kind="logits"
            )
            about = {"name": data or folder.name, "fingerprint": folder.name, "splits": {"test": folder.name}}
            write_json(path.record, {"format": 1, "status": "finished", "stages": {}, "data": about})
    described = {
        "format": 1,
        "name": folder.name,
        "runs": list(accuracies),
        "seeds": list(range(seeds)),
        "contrasts": contrasts or [("all", first, other) for other in accuracies if other != first],
    }
    write_json(folder / "study.json", described)
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    gains = {"digits": 0.03, "letters": 0.035, "fashion": 0.025, "street-numbers": 0.03}
    return [
        make_study(tmp_path / "runs" / name, {"base": 0.9, "new": 0.9 + gain, "equal": 0.9})
        for name, gain in gains.items()
    ]


def test_average_and_a_new_data_set(studies: list[Path]) -> None:
    new, equal = compare_data_sets(studies).pairs
    assert new.real
    assert new.verdict.startswith(
        "new is better than base on average over 4 data sets: new minus base is +3."
    )
    assert new.average is not None
    assert new.new is not None
    assert (new.average.unit, new.average.n) == ("data sets", 4)
    assert new.new.low <= new.average.low < 0.03 < new.average.high <= new.new.high
    assert new.notes[0].startswith("on a new data set like these, new minus base would be between ")
    assert new.notes[0].endswith("new would be better there too")
    assert set(new.without) == {each.data_set for each in new.sets}
    assert "no single data set decides" in new.notes[2]
    assert not equal.real
    assert equal.notes[0].endswith("either may be better there")
    assert all(each.shrunken is not None for each in new.sets)


def test_one_data_set_that_decides(tmp_path: Path) -> None:
    gains = {"one": 0.0, "three": 0.03, "fives5": 0.032, "seven77": 0.034, "eleven1111": 0.031}
    folders = [make_study(tmp_path / name, {"base": 0.9, "new": 0.9 + gain}) for name, gain in gains.items()]
    (pair,) = compare_data_sets(folders).pairs
    assert pair.q_p is not None
    assert pair.q_p < 0.05
    assert "the difference is not the same on all data sets" in pair.notes[1]
    if pair.decides:
        assert "decide" in pair.notes[2]
    assert pair.without["one"].low > 0


def test_pairs_the_other_way_round_and_missing_ones(studies: list[Path], tmp_path: Path) -> None:
    other = make_study(
        tmp_path / "runs" / "turned-round", {"new": 0.93, "base": 0.9}, contrasts=[("x", "new", "base")]
    )
    told = compare_data_sets([*studies, other])
    new, equal = told.pairs
    assert len(new.sets) == 5
    assert new.sets[-1].difference.value > 0
    assert len(equal.sets) == 4
    assert told.left_out == ["base and equal were not compared on turned-round"]


def test_two_data_sets_are_too_few(studies: list[Path]) -> None:
    pair = compare_data_sets(studies[:2]).pairs[0]
    assert pair.average is None
    assert "2 data sets are too few for a verdict on average" in pair.verdict


def test_what_is_refused(type_: Type, studies: list[Path], tmp_path: Path) -> None:
    other = make_study(tmp_path / "runs" / "z", {"x": 0.9, "y": 0.8})
    first = str(studies[0])
    for folders, said in (
        ([first], "give two studies or more"),
        ([first, first], "were tested on the same images"),
        ([first, f"{first}/base"], "--across takes studies"),
        ([first, str(other)], "no pair of variants in common"),
        ([first, str(tmp_path / "nothing")], "is not the folder of a run"),
    ):
        code, _, err = type_(*folders, "--across")
        assert (code, said in err) == (2, True), err
    code, _, err = type_(first, str(studies[1]), "--across", "--same-within", "0.01")
    assert code == 2
    assert "--same-within is not for --across" in err


@pytest.mark.breadth(1)
@pytest.mark.parametrize("metric", ["cross_entropy", "brier", "auroc", "cost"])
def test_metrics_that_are_not_in_percent_are_refused(type_: Type, studies: list[Path], metric: str) -> None:
    with pytest.raises(ConfigError, match=f"is of scores in percent, such as the accuracy; {metric} is none"):
        compare_data_sets(studies, metric=metric)
    assert compare_data_sets(studies, metric="macro_f1").pairs[0].average is not None
    code, _, err = type_(*map(str, studies), "--across", "--metric", metric)
    assert (code, f"{metric} is none" in err) == (2, True), err


def test_the_command_and_the_function_say_the_same(type_: Type, studies: list[Path]) -> None:
    words = list(map(str, studies))
    code, out, _ = type_(*words, "--across")
    assert code == 0
    assert "a new data set" in out
    assert "on average over 4 data sets" in out
    told = json.loads(type_(*words, "--across", "--json")[1])
    found = sl.compare_across(*studies)
    assert found["pairs"] == told["pairs"]
    markdown = type_(*words, "--across", "--markdown")[1]
    assert markdown.startswith("### test accuracy over data sets\n\n- new is better than base on average")
    assert markdown.count("\n| average |") == 2
    assert "AcrossDataSets(2 pairs: new is better" in repr(found)
    drawing = str(found.plot("base", "new").drawing)
    assert "a new data set" in drawing
    assert drawing.count('class="ring"') == 4
    with pytest.raises(ConfigError, match="compared were"):
        found.plot("new", "other")
    assert len(found.to_frame()) == 8
    assert "<svg" in found._repr_html_()


@pytest.mark.slow
def test_the_page_has_a_chart_and_a_table_for_each_pair(
    type_: Type, studies: list[Path], tmp_path: Path
) -> None:
    other = make_study(tmp_path / "runs" / "<b>bold", {"base": 0.9, "new": 0.93})
    (studies[0] / "report.html").write_text("a page")
    words = list(map(str, [*studies, other]))
    page = tmp_path / "pages" / "across.html"
    code, out, err = type_(*words, "--across", "--page", str(page))
    assert code == 0, err
    assert f"page: {page}" in out
    html = page.read_text()
    new, equal = compare_data_sets([*studies, other]).pairs
    assert html.count('<figure class="chart') == 2
    assert 'href="../runs/digits/report.html"' in html
    assert html.count("<h2><bdi>new minus base</bdi></h2>") == 1
    assert "<b>bold" not in html
    for pair in (new, equal):
        assert pair.verdict.partition(":")[0] in html
        assert pair.i2 is not None
        assert f"<dd>{100 * pair.i2:.0f} %</dd>" in html
    assert "base and equal were not compared on &lt;b&gt;bold" in html
    assert html.count("Average without it, points") == 2
    saved = sl.compare_across(*studies, other).save(tmp_path / "pages" / "again.html")
    assert saved.read_text() == html
    code, out, err = type_(*words, "--across", "--json", "--page", str(page))
    assert json.loads(out)["pairs"]
    assert "page: " in err


def test_a_page_of_two_data_sets_says_that_they_are_too_few(studies: list[Path], tmp_path: Path) -> None:
    html = sl.compare_across(*studies[:2]).save(tmp_path / "two.html").read_text()
    assert "too few data sets" in html
    assert "2 data sets are too few for a verdict on average" in html
    assert "Can the data sets be pooled?" not in html
    assert "a new data set" not in html


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--across", "--page", "across"], "across: a page is an HTML file; end its name with .html"),
        (["--across", "--page", "."], "a page is an HTML file"),
        (["--across", "--out", "a.html"], "--out a.html: the page is given with --page a.html"),
        (["--page", "a.html"], "--page a.html: a page is written with --across; a study has its report.html"),
    ],
)
def test_wrong_pages_are_refused(type_: Type, studies: list[Path], given: list[str], said: str) -> None:
    code, out, err = type_(*map(str, studies), *given)
    assert (code, said in err, out) == (2, True, ""), err
    with pytest.raises(sl.ConfigError, match=r"end its name with \.html"):
        sl.compare_across(*studies).save("across.pdf")
