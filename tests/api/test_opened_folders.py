"""Studies, their variants, and the ways to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs import OPTIONS, SMALL, Finished

import stresslens as sl
from stresslens.core.errors import ConfigError


def test_a_study_holds_its_runs_and_stands_for_its_folder(subjects: Finished) -> None:
    study = subjects.study
    assert [(run.variant, run.seed) for run in study.runs] == [("a", 0), ("b", 0)]
    scores = study.scores()
    assert scores["a"]["accuracy"].value == study.runs[0].scores()["accuracy"].value
    assert [row["accuracy"] for row in study.rows()] == [s["accuracy"].value for s in scores.values()]
    assert study.comparison["verdicts"] == sl.compare(study)["verdicts"]
    assert study.comparison["kind"] == "study"
    assert study.report == study.folder / "report.html"
    study.report.unlink()
    assert study.report.is_file(), "it is written again"
    folder = study.folder
    assert (os.fspath(study), str(study), f"{study}") == (str(folder),) * 3
    assert study / "study.json" == folder / "study.json"
    assert study == folder
    assert {study: 1}[folder] == 1
    assert sorted(study.rglob("record.json")) == sorted(folder.rglob("record.json"))
    assert (study.name, study.parent, study.is_dir()) == (folder.name, folder.parent, True)
    with pytest.raises(AttributeError, match="Study has no attribute 'scorse'"):
        _ = study.scorse


def test_open_tells_runs_from_studies(subjects: Finished, tmp_path: Path) -> None:
    out = subjects.study.folder.parent
    assert isinstance(sl.open(subjects.study.folder), sl.Study)
    assert isinstance(sl.open(subjects.study.folder / "a"), sl.Run)
    python = sl.open(out / "python")
    assert isinstance(python, sl.Study)
    assert len(python.runs) == 3
    assert len(python.comparison["recipes"]) == 3
    with pytest.raises(ConfigError, match=r"holds the studies one, python, two; give the folder of one"):
        sl.open(out)
    with pytest.raises(ConfigError, match="is a study; module and data are those of a run"):
        sl.open(subjects.study.folder, data=tmp_path)


def test_open_opens_the_only_study_of_a_folder(subjects: Finished, tmp_path: Path) -> None:
    shutil.copytree(subjects.study.folder, tmp_path / "only")
    study = sl.open(tmp_path)
    assert isinstance(study, sl.Study)
    assert study.folder == tmp_path / "only"
    with pytest.raises(ConfigError, match="only is a study; module and data are those of a run"):
        sl.open(tmp_path, data=tmp_path)


def test_an_unreadable_run_is_shown_as_such(subjects: Finished, tmp_path: Path) -> None:
    (tmp_path / "a" / "seed-0").mkdir(parents=True)
    (tmp_path / "a" / "seed-0" / "record.json").write_text("{")
    study = sl.open(tmp_path)
    assert isinstance(study, sl.Study)
    assert [run.status for run in study.runs] == ["unreadable"]
    assert "1 not finished" in repr(study)


@pytest.mark.slow
def test_the_robustness_of_a_study_is_read_from_its_files(tmp_path: Path) -> None:
    attack: dict[str, Any] = {"protocol": ["fgsm"], "radii": ["8/255", 0.1], "images": 10, "audit": False}
    values = {"study": "s", "data": SMALL, "model": "linear", "train": OPTIONS, "robustness": attack}
    study = sl.run({**values, "repeats": 2, "runs": {"a": {}, "b": {"train.lr": 0.1}}}, out=tmp_path)
    scores = study.scores()
    for variant in ("a", "b"):
        found = [run.robustness for run in study[variant].runs]
        assert [len(each) for each in found] == [1, 1]
        assert all(isinstance(each, sl.AttackResult) for (each,) in found)
        for name, eps in (("robust@8/255", 8 / 255), ("robust@0.1", 0.1)):
            values_of_seeds = [float(each.robust_accuracy(eps)) for (each,) in found]
            assert float(scores[variant][name]) == pytest.approx(np.mean(values_of_seeds))
            rows = [row[name] for row in study.rows() if row["variant"] == variant]
            assert rows == pytest.approx(values_of_seeds)
    chart = study.plot("robustness")
    drawn = [list(row.values())[:3] for row in chart.rows if row["line"] == "b"]
    x, accuracy = drawn[-1][1:]
    assert (x, accuracy) == pytest.approx((0.1, 100 * float(scores["b"]["robust@0.1"])), abs=1e-6)
    with pytest.raises(ConfigError, match="figure is 'loss'; expected 'accuracy' or 'robustness'"):
        study.plot("loss")  # type: ignore[arg-type]
    again = sl.attack(study["a"].runs[0], radii=[0.1], protocol=["noise"], n_images=10, audit=False)
    assert {each.result.key for each in study["a"].runs[0].robustness} > {again.result.key}
    assert study.scores()["a"]["robust@0.1"] == scores["a"]["robust@0.1"], "only one run has the other attack"
    kept = (study / "study.json").read_text()
    (study / "study.json").write_text("{")
    assert [row["variant"] for row in study.rows()] == ["a", "a", "b", "b"]
    with pytest.raises(sl.StresslensError, match=r"the call that made the study \(`sl.run` or `sl.train`\)"):
        study.scores()
    (study / "study.json").write_text(kept)
    for run in study["b"].runs:
        shutil.rmtree(run.folder / "robustness")
    assert "robust@0.1" not in study.scores()["a"], "not every variant has it"
    assert "robust@0.1" not in study.rows()[0]


def test_a_study_that_was_not_attacked_has_no_robustness(subjects: Finished) -> None:
    assert subjects.study.runs[0].robustness == []
    assert not any("robust@" in name for name in subjects.study.scores()["a"])
    with pytest.raises(ConfigError, match=r"has no attacked run to draw; sl.attack\(run, radii=…\)"):
        subjects.study.plot("robustness")


def test_an_opened_study_keeps_the_trust_of_the_call(subjects: Finished) -> None:
    distrusted = sl.open(subjects.study.folder)
    assert isinstance(distrusted, sl.Study)
    assert not distrusted.trust
    trusted = sl.open(distrusted, trust=True)
    assert isinstance(trusted, sl.Study)
    assert trusted.trust
    assert sl.open(trusted).trust
    with pytest.raises(ConfigError, match="is a study; module and data are those of a run"):
        sl.open(distrusted, data="elsewhere")


def test_a_name_that_is_not_there_is_told_with_the_closest(subjects: Finished) -> None:
    scores = subjects.run.scores()
    with pytest.raises(sl.StresslensError, match=r"^there is no score 'acuracy'; did you mean 'accuracy'\?"):
        scores["acuracy"]
    with pytest.raises(KeyError):
        scores["acuracy"]
    assert scores.get("acuracy") is None
    assert "acuracy" not in scores
    for get in (subjects.study.scores().__getitem__, subjects.study.__getitem__):
        with pytest.raises(sl.StresslensError, match=r"^there is no variant 'c'; valid: a, b$"):
            get("c")
    with pytest.raises(KeyError, match="did you mean 'verdicts'"):
        sl.compare(subjects.study)["verdict"]


def test_a_study_gives_its_variants(subjects: Finished) -> None:
    study, variant = subjects.study, subjects.study["b"]
    assert "b" in study
    assert "c" not in study
    assert (variant.name, variant.folder) == ("b", study.folder / "b")
    assert [run.folder for run in variant.runs] == [study.folder / "b" / "seed-0"]
    assert variant.scores() == study.scores()["b"]
    assert sl.compare(study["a"], variant) == sl.compare(study.folder / "a", study.folder / "b")
    assert sl.evaluate(variant) == variant.runs[0].scores()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> sl.Study:
    values = {"study": "seeds", "data": SMALL, "model": "linear", "train": OPTIONS, "repeats": 3}
    return sl.run({**values, "runs": {"a": {}, "b": {"train.lr": 0.1}}}, out=tmp_path_factory.mktemp("seeds"))


@pytest.mark.slow
def test_the_folder_of_a_variant_with_several_seeds_is_opened(
    seeds: sl.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = sl.open(seeds.folder / "b")
    assert variant == sl.open(seeds["b"]) == sl.open(seeds)["b"]
    assert [run.seed for run in variant.runs] == [0, 1, 2]
    assert variant.scores() == seeds["b"].scores()
    assert sl.open(seeds.folder / "b", trust=True).study.trust
    with pytest.raises(ConfigError, match="b has several seeds; module and data are those of a run"):
        sl.open(seeds.folder / "b", data=seeds.folder)
    monkeypatch.chdir(seeds.folder / "b")
    assert sl.open(".").scores() == variant.scores()


def test_a_variant_shows_its_seeds(seeds: sl.Study) -> None:
    variant = seeds["b"]
    accuracy, each = variant.scores()["accuracy"], [run.scores()["accuracy"].value for run in variant.runs]
    html = variant._repr_html_()
    assert f"b: 3 finished seeds, test accuracy {100 * accuracy.value:.1f} % (" in html
    rows = variant.plot().rows
    assert [row["name"] for row in rows] == ["seed 0", "seed 1", "seed 2"]
    assert [list(row.values())[1] for row in rows] == pytest.approx([100 * value for value in each])
    for seed in range(3):
        assert f"seed {seed}" in html


def test_a_variant_without_a_finished_seed_is_told(seeds: sl.Study, tmp_path: Path) -> None:
    (tmp_path / "b" / "seed-0").mkdir(parents=True)
    (tmp_path / "b" / "seed-0" / "record.json").write_text("{")
    variant = sl.open(tmp_path)["b"]
    assert "seeds" in variant._repr_html_()
    with pytest.raises(ConfigError, match="b has no finished run to draw"):
        variant.plot()


def test_pandas_makes_the_same_tables(subjects: Finished) -> None:
    pandas = pytest.importorskip("pandas")
    for result in (subjects.run, subjects.run.per_class, subjects.study, subjects.study["a"]):
        assert pandas.DataFrame(result).equals(result.to_frame())  # type: ignore[union-attr]


def test_a_comparison_says_whether_the_difference_is_real(subjects: Finished) -> None:
    found = sl.compare(subjects.study)
    (contrast,) = found["contrasts"]
    assert repr(found).startswith(
        f"Comparison(1 contrast, {int(contrast['real'])} real: {contrast['verdict']}"
    )
    none = type(found)({**found, "contrasts": []})
    assert repr(none).startswith(f"Comparison(0 contrasts, 0 real: {found['verdicts'][0][:40]}")


def test_runs_on_a_part_of_the_data_are_compared_by_corrected_labels(tmp_path: Path) -> None:
    options: dict[str, Any] = {**OPTIONS, "subset": {"images": 60}, "out": tmp_path}
    runs = [sl.train("linear", SMALL, **{**options, "name": f"at-{lr}", "lr": lr}) for lr in (0.1, 0.01)]
    data = sl.open(runs[0]).data
    assert data is not None
    (tmp_path / "c.csv").write_text("file,label\ntest[0],drop\n")
    by_path = sl.compare(*(run.folder for run in runs), corrections=tmp_path / "c.csv")
    assert sl.compare(*runs, corrections=tmp_path / "c.csv") == by_path


def test_a_variant_keeps_the_trust_of_its_study(seeds: sl.Study) -> None:
    for trust in (False, True):
        variant = sl.Study(seeds.folder, trust=trust)["b"]
        assert sl.open(variant).trust == trust
        assert [run.trust for run in variant.runs] == [trust] * 3
