"""Model cards: the hub's library reads the front matter, and every figure is one of the record."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import stresslens as sl
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.report.model_card import render_model_card

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    out = tmp_path_factory.mktemp("card")
    robustness = {"protocol": "fast", "norm": "linf", "radii": [0, 0.1], "images": 16}
    study = sl.run(
        {
            "study": "cards",
            "data": "digits",
            "model": {"mlp": {"widths": [8]}},
            "train": {"epochs": 1},
            "robustness": robustness,
            "runs": {"small|net": {}},
        },
        out=out,
        progress=False,
    )
    return study.runs[0]


def test_the_hub_reads_the_front_matter(run: sl.Run) -> None:
    text = render_model_card(RunFolder(run.folder))
    card = ModelCard(text)
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["digits"]
    found = {each.metric_type: each.metric_value for each in card.data.eval_results}
    scores = run.scores("test")
    assert found["accuracy"] == pytest.approx(scores["accuracy"].value, abs=1e-6)
    assert found["f1"] == pytest.approx(scores["macro_f1"].value, abs=1e-6)
    assert {each.dataset_split for each in card.data.eval_results} == {"test"}


def test_it_tells_what_was_measured_and_what_was_not(run: sl.Run) -> None:
    text = render_model_card(RunFolder(run.folder))
    accuracy = run.scores("test")["accuracy"]
    assert f"| Accuracy | {100 * accuracy.value:.1f} % ({100 * accuracy.low:.1f} to" in text
    assert f"| {accuracy.n} | Wilson |" in text
    for heading in ("Data", "By class", "Calibration", "Robustness", "Audits of the attacks", "Limits"):
        assert f"\n## {heading}\n" in text
    assert "Not attacked" not in text
    assert "Not tried under corruptions" in text
    assert "Licence:" in text
    assert "\n# cards/small\\_net" in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert settings["model"] == {"mlp": {"widths": [8]}}


def test_the_command_prints_and_writes_it(run: sl.Run, type_: Type, tmp_path: Path) -> None:
    code, out, _ = type_("card", str(run.folder))
    assert code == 0
    assert out == render_model_card(RunFolder(run.folder)) == run.model_card()
    assert type_("card", str(run.folder), "--out", str(tmp_path / "README.md"))[0] == 0
    assert (tmp_path / "README.md").read_text() == out
    code, _, err = type_("card", str(tmp_path / "none"))
    assert code == 2
    assert "there is no" in err


def test_of_predictions_of_another_program(
    type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open("net.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "place", "prob_cat", "prob_dog|wolf"])
        for k in range(40):
            share = 0.9 - k % 2 * 0.5
            row = [f"{k}.png", ["cat", "dog|wolf"][k % 2], "ab"[k % 3 == 0], share, 1 - share]
            table.writerow(row)
    assert type_("evaluate", "net.csv")[0] == 0
    (folder,) = Path("runs").glob("*/net/seed-0")
    text = render_model_card(RunFolder(folder))
    assert "Only its predictions are known, from net.csv." in text
    assert "dog\\|wolf" in text
    assert "\nplace (alike: p" in text
    assert "## Use" not in text
    assert "Not attacked: nothing is known" in text
    assert ModelCard(text).data.eval_results
    assert ModelCard(text).data.datasets is None


def test_a_run_without_scores_has_no_card(tmp_path: Path) -> None:
    folder = tmp_path / "seed-0"
    folder.mkdir()
    (folder / "record.json").write_text('{"format": 1, "status": "running"}')
    with pytest.raises(ConfigError, match=r"has no scores \(running\)"):
        render_model_card(RunFolder(folder))
