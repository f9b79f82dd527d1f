"""The pages of a study and of its runs, from folders whose files are written here by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from folders import PLAN, write_json, write_run, write_study
from pages import RUN, STUDY, Page, page_of
from torch import nn

from stresslens.core.layer_table import layer_table
from stresslens.evaluation.record import RunRecord
from stresslens.report.load import load_study
from stresslens.report.page import render_study, write_report


def test_every_section_of_a_study_in_order(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"], seeds=2)
    html, page = page_of(study)
    assert page.sections == STUDY.split()
    for said in (
        "Highest mean accuracy: adam",
        "Is adam better?",
        "95.4 (93.4 to 97.4)",
        "+0.4 (−1.6 to +2.4)",
        "720 predictions of 2 seeds",
        "0.420",
        "crossed bootstrap",
        "2.10 (1.90 to 2.30)",
        "a note",
        "stresslens run studies/x.yaml train.epochs=5",
        "Package torch",
        "majority class 10.3",
        "Calibrated ECE",
        "near duplicates across splits",
    ):
        assert said in page.text, said
    assert len(html) < 200_000
    assert not list(study.rglob(".report*"))


def test_every_section_of_a_run_in_order(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"], seeds=2)
    write_report(study)
    page = Page((study / "run1" / "seed-1" / "report.html").read_text(encoding="utf-8"))
    assert page.sections == RUN.split()
    for said in (
        "study · adam · seed 1",
        "T = 1.83, fitted on validation",
        "test/3/picture-00003.jpg",
        "AUPRC",
        "after temperature scaling",
        "By brightness p 0.012",
        "dark (0.02 to 0.31)",
        "8 × 8",
        "checkpoint: checkpoint.pt could not be read",
        "resumed from epoch 1, step 3",
        "stresslens run config.yaml",
        "Not checked: group leakage (no group is given).",
    ):
        assert said in page.text, said


def test_pages_link_to_each_other(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a b", "ü/#?"], seeds=2)
    _, page = page_of(study)
    links = [href for href in page.attributes("href") if not href.startswith("#")]
    assert links[1:] == [f"run{k}/seed-{seed}/report.html" for k in (0, 1) for seed in (0, 1)]
    assert links[0] in links[1::2]  # the run of the surest mistakes
    odd = write_run(study, "odd", 0, folder="100% 'ü#?")
    _, page = page_of(study)
    assert "100%25%20%27%C3%BC%23%3F/seed-0/report.html" in page.attributes("href")
    assert "../../report.html" in page_of(odd)[1].attributes("href")
    alone = write_run(tmp_path / "elsewhere", "adam", 0)
    assert all(href.startswith("#") for href in page_of(alone)[1].attributes("href"))


def test_a_page_is_made_again_only_when_its_files_have_changed(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    write_report(study)
    first, second = (study / f"run{k}" / "seed-0" / "report.html" for k in (0, 1))
    before = [path.stat().st_mtime_ns for path in (first, second)]
    (second.parent / "config.yaml").write_text("train: {lr: 7}")
    write_report(study, anew=False)
    assert first.stat().st_mtime_ns == before[0]
    assert second.stat().st_mtime_ns > before[1]
    assert "lr: 7" in second.read_text()
    first.write_text("damaged")
    write_report(study, anew=False)
    assert "Scores" in first.read_text()
    before = second.stat().st_mtime_ns
    write_report(study)
    assert second.stat().st_mtime_ns > before


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert render_study(load_study(study)) == render_study(load_study(study))


def test_real_verdicts_come_first_and_the_others_say_what_it_would_take(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "adam-bn", "lion"])
    head = page_of(study)[1].text.split("Results on the test split")[0]
    places = [
        head.index(said)
        for said in ("Highest", "optimizer 1 of 3 real", "adam-bn is better than sgd", "sgd and adam are not")
    ]
    assert places == sorted(places)
    assert head.count(PLAN) == 2


def test_names_of_contrasts_group_the_verdicts(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c", "d"])
    comparison = json.loads((study / "comparison.json").read_text())
    for row, name in zip(comparison["contrasts"], ("unclear", "clear", "unclear")):
        row["contrast"] = name
    write_json(study / "comparison.json", comparison)
    html, page = page_of(study)
    assert html.count('<div class="question">') == 2
    head = page.text.split("Results on")[0]
    assert head.index("clear 1 of 1 real") < head.index("unclear no real difference")


def test_pairs_that_too_few_seeds_leave_untested_are_not_called_equal(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c", "d"])
    comparison = json.loads((study / "comparison.json").read_text())
    for row in comparison["contrasts"]:
        row |= {"contrast": "seeds", "real": False}
    comparison["contrasts"][1]["too_few_seeds"] = True
    write_json(study / "comparison.json", comparison)
    assert "seeds 1 of 3 untested: too few seeds" in page_of(study)[1].text


@pytest.mark.slow
def test_many_verdicts_are_shortened_at_the_head_and_whole_in_the_table(tmp_path: Path) -> None:
    study = write_study(tmp_path, [f"r{i:02d}" for i in range(60)])
    _, page = page_of(study)
    head, rest = page.text.split("Results on the test split")
    assert head.count("is better than r00") == 20
    assert head.count("are not distinguishable") == 4
    assert "20 of 59 real" in head
    assert "35 more in the table of contrasts" in head
    assert rest.count("not distinguishable") == 39
    assert "is better than r00" not in rest
    assert "Holm's correction" in rest


def test_the_matrix_shades_what_is_real_and_puts_the_best_first(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c"])
    comparison = json.loads((study / "comparison.json").read_text())
    third = [[None, 0.02, -0.03], [-0.02, None, 0.001], [0.03, -0.001, None]]
    comparison["matrix"] |= {
        "difference": third,
        "real": [[d is not None and abs(d) > 0.01 for d in row] for row in third],
    }
    write_json(study / "comparison.json", comparison)
    table = page_of(study)[0].split('<table class="matrix">')[1].split("</table>")[0]
    assert re.findall(r'<td title="[^"]*"(?: class="(\w+)")?>([^< ]*)', table) == [
        ("ahead", "+3.0"),
        ("", "−0.1"),
        ("behind", "−3.0"),
        ("ahead", "+2.0"),
        ("", "+0.1"),
        ("behind", "−2.0"),
    ]


def test_serious_findings_come_first_with_what_to_do(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"])
    _, page = page_of(study)
    said = [
        "near duplicates across splits serious",
        "remove them from the training split",
        "cats/0011.jpg",
        "and 18 more",
    ]
    said += ["class imbalance minor", "with no sign: constant images", "Not checked: group leakage"]
    text = " ".join(page.text.split())
    places = [text.index(each) for each in said]
    assert places == sorted(places)
    assert "cats/0012.jpg" not in text
    assert "found a serious sign: near duplicates across splits" in text


def test_folds_are_one_data_set(tmp_path: Path) -> None:
    for seed in range(3):
        facts = {"name": "own", "fingerprint": f"f{seed}", "sizes": {"train": 20, "test": 10}}
        write_run(
            tmp_path,
            "cnn",
            seed,
            data=facts | {"division": {"kind": "folds", "folds": 3, "fold": seed, "repetition": 0}},
        )
    _, page = page_of(tmp_path)
    assert "3 folds, different test images for each seed" in page.text
    assert page.text.count("Fingerprint") == 1
    assert "fold 2 of 3, repetition 1" in page_of(tmp_path / "cnn" / "seed-1")[1].text


def test_cells_of_the_confusion_lead_to_their_pictures(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"], pictures=60)
    html, page = page_of(study / "run0" / "seed-0")
    pairs = set(page.attributes("data-pair"))
    assert pairs == {f"{i}-{(i + step) % 10}" for i in range(10) for step in (1, 2)} & set(
        page.attributes("data-of")
    )
    assert len(pairs) >= 10
    assert {f"p{pair}" for pair in pairs} <= set(page.attributes("id"))
    assert html.count("data:image/") == 1


def test_watching_the_test_split_is_bannered(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert "never used to choose" not in page_of(study)[1].text
    write_run(study, "sgd", 0, folder="run0", watched_test=True, reads_of_test=6)
    for folder in (study, study / "run0" / "seed-0"):
        assert (
            "The test split was measured after every epoch (6 reads) and never used to choose anything."
            in page_of(folder)[1].text
        )


def test_a_single_run_has_its_own_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", "adam", 0)
    _, page = page_of(run)
    assert (run / "report.html").is_file()
    assert "study · adam · seed 0" in page.text
    assert (
        "of the test split is classified correctly, against 10.3 for always naming the commonest class"
        in page.text
    )


def test_many_classes_show_the_most_confused_pairs(tmp_path: Path) -> None:
    run = write_run(tmp_path, "adam", 0, classes=[f"class {i}" for i in range(50)], images=5000)
    _, page = page_of(run)
    assert "The 20 pairs confused most often, of 50 classes" in page.text
    assert "class 0 predicted as class 1: " in page.text


def test_layers_are_read_as_core_writes_them() -> None:
    table = layer_table(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), (1, 8, 8))
    assert (
        RunRecord.model_validate_json(json.dumps({"status": "finished", "layers": table.as_json()})).layers
        == table
    )
