"""What the terminal shows of predictions and of an attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.cli.robustness_tables import print_robustness
from stresslens.cli.terminal import print_predictions
from stresslens.evaluation.classify_files import Prediction


def predictions(*marked: bool) -> list[Prediction]:
    return [
        Prediction(f"{k}.png", (("cat", 0.8), ("dog", 0.2)), out_of_distribution=each)
        for k, each in enumerate(marked)
    ]


def test_the_column_of_marks_has_a_heading_and_is_there_where_an_image_is_marked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_predictions(predictions(False, False), "said", "predictions")
    plain = capsys.readouterr().out
    assert "next" in plain
    assert "marked" not in plain
    print_predictions(predictions(False, True), "said", "predictions")
    assert "marked" in (shown := capsys.readouterr().out)
    assert shown.count("out of distribution") == 1
    print_predictions([], "said", "predictions")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_images_outside_the_ball_are_told_without_audits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def far(model, x, y):\n    return x + 0.5 * (x < 0.5)\n")
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    x[:10] = 0.9  # nothing to add: these stay inside
    y = net(x).argmax(1)
    options: dict[str, Any] = {"norm": "linf", "radii": [0.1], "trust": True}
    for audit in (False, True):
        found = sl.attack(net, x, y, protocol=["mine.py:far"], audit=audit, **options)
        outside = int((x < 0.5).flatten(1).any(1).sum())
        said = (
            f"{outside} of {found.result.traces[0].n} returned images are outside the ball or the box [0, 1] "
            f"and do not count (attack {found.result.traces[0].attack} at 0.1)"
        )
        assert said in repr(found)
        assert said in found._repr_html_()
        print_robustness(found.result, "mine")
        assert said in capsys.readouterr().out.splitlines()
    inside = sl.attack(net, x, y, radii=[0.1], protocol=["fgsm"], audit=False)
    print_robustness(inside.result, "mine")
    assert "outside" not in capsys.readouterr().out + repr(inside) + inside._repr_html_()


def test_an_attack_shows_its_signs_and_names_the_other_audits(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 2)).eval()
    x = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = net(x).argmax(1)
    found = sl.attack(net.train(), x, labels, radii=[0.1], protocol=["fgsm"])
    assert repr(found.result).startswith("ResultFile(linf-own-")
    assert len(repr(found.result)) < 400
    print_robustness(found.result, "mine")
    lines = capsys.readouterr().out.splitlines()
    count = {status: sum(f.status == status for f in found.findings) for status in ("no sign", "not checked")}
    [quiet] = [line for line in lines if line.startswith(f"✓ no sign, {count['no sign']} audits: ")]
    assert "evaluation mode" not in quiet  # a sign, as the net came in training mode
    [idle] = [line for line in lines if line.startswith(f"– not checked, {count['not checked']} audits: ")]
    assert "surrogate" in idle
    signs = [finding for finding in found.findings if finding.status == "sign"]
    assert "evaluation mode" in [finding.audit for finding in signs]
    for finding in signs:
        assert any(finding.evidence in line for line in lines)
