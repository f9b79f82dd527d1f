"""Recounts of adversarial images, sound and spoiled, from Python and by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli import app

EPS = 0.1


@pytest.fixture(scope="module")
def case() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, images that it has right, and FGSM's images of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(40, 1, 4, 4)
    y = model(x).argmax(1)
    found = sl.attack(model, x, y, radii=EPS, protocol=["fgsm", "pgd"], audit=False)
    x_adv = x.clone()
    x_adv[found.arrays["rows"]] = torch.from_numpy(found.arrays["adversarials"])
    return model, x, y, x_adv


def signs(recount: sl.Verification) -> list[str]:
    return [finding.audit for finding in recount.findings if finding.status == "sign"]


def test_sound_images_hold(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, x, y, x_adv = case
    recount = sl.verify(model, x_adv, x, y, eps=EPS)
    fooled = model(x_adv).argmax(1) != y
    assert recount.broken.tolist() == fooled.tolist()
    assert 5 < recount.broken.sum() < 40
    assert recount.robust.value == pytest.approx(1 - float(fooled.float().mean()))
    assert recount.clean.value == 1
    assert signs(recount) == []
    assert recount.largest <= EPS * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("kind", ["ball", "box", "finite"])
def test_what_is_out_of_bounds_does_not_count(case: tuple[nn.Module, Tensor, Tensor, Tensor], kind: str) -> None:
    model, x, y, x_adv = case
    spoiled = x_adv.clone()
    if kind == "ball":
        spoiled = x + 3 * (x_adv - x)
        spoiled = spoiled.clamp(0, 1)
    else:
        spoiled[:, 0, 0, 0] = -0.05 if kind == "box" else float("nan")
    recount = sl.verify(model, spoiled, x, y, eps=EPS)
    assert kind in signs(recount)
    outside = {"ball": (spoiled - x).flatten(1).abs().amax(1) > EPS * 1.001}.get(kind, torch.ones(len(x), dtype=torch.bool))
    assert not recount.broken[outside.numpy()].any()


def test_eight_bits_a_claim_and_missing_images_are_told(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, x, y, x_adv = case
    recount = sl.verify(model, (x_adv * 255).to(torch.uint8), x, y, eps=EPS, claimed=0.01)
    assert {"8 bits", "claimed accuracy"} <= set(signs(recount))
    from stresslens.verification import verify

    assert "dropped images" in signs(verify(model, x_adv, x, y, eps=EPS, asked=48))


@pytest.mark.parametrize(
    ("adversarials", "eps", "said"),
    [
        (torch.rand(40, 1, 4, 5), EPS, "shape"),
        (torch.zeros(40, 1, 4, 4, dtype=torch.int64), EPS, "int64"),
        (torch.rand(40, 1, 4, 4), [0.1, 0.2], "one radius"),
    ],
)
def test_what_cannot_be_read_is_told(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], adversarials: Tensor, eps: Any, said: str
) -> None:
    model, x, y, _ = case
    with pytest.raises(sl.StresslensError, match=said):
        sl.verify(model, adversarials, x, y, eps=eps)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return sl.train(
        "linear", "digits", epochs=5, lr=0.01, out=tmp_path_factory.mktemp("runs"), threads=1, precision="float32"
    ).folder


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if isinstance(result.exception, sl.StresslensError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout


def test_attack_then_verify_by_command(run: Path, tmp_path: Path) -> None:
    code, text = command(
        "attack", str(run), "--radii", "0:0.1:0.05", "--images", "100", "--protocol", "[fgsm, pgd]", "--alone", "fgsm", "--json"
    )
    assert code == 0
    facts = json.loads(text)
    assert [point["eps"] for point in facts["curve"]] == [0, 0.05, 0.1]
    assert facts["findings"]
    (result,) = (run / "robustness").glob("*/result.npz")
    code, text = command("verify", str(run), str(result), "--norm", "linf", "--json")
    recount = json.loads(text)
    assert code == 0
    assert recount["broken"] == recount["n"] == len(np.load(result)["rows"])
    images = np.load(result)
    far = tmp_path / "far.npz"
    np.savez(far, adversarials=1 - images["adversarials"], index=images["index"][images["rows"]], eps=0.05, norm="linf")
    code, text = command("verify", str(run), str(far))
    assert code == 5
    assert "ball" in text
    code, text = command("verify", str(run), str(tmp_path / "none.npz"))
    assert code == 2
    wrong = tmp_path / "labels.npz"
    np.savez(
        wrong,
        adversarials=images["adversarials"],
        index=images["index"][images["rows"]],
        labels=images["adversarial_prediction"],
        eps=0.1,
        norm="linf",
    )
    code, text = command("verify", str(run), str(wrong))
    assert code == 5
    assert "labels" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--radii", "0.1", "--fail-under", "robust@0.1=0.99", "--no-audit"], 5, "below 0.99"),
        (["--radii", "0.1", "--fail-under", "robust@0.2=0.5", "--no-audit"], 2, "was not attacked"),
        (["--radii", "0.1", "--fail-under", "accuracy=0.5"], 2, "robust@RADIUS=SHARE"),
        ([], 2, "give --radii"),
        (["--radii", "8"], 2, "8/255"),
        (["--radii", "0.1", "--protocol", "fats"], 2, "protocol"),
        (["--radii", "0.1", "--norm", "l3"], 2, "norm"),
        (["--radii", "0.1", "--split", "train"], 2, "split"),
        (["--radii", "0.1", "--protocol", "[transfer]"], 2, "surrogate"),
        (["--radii", "0.1", "--images", "0"], 2, "images"),
        (["--radii", "0.1", "--target", "12", "--protocol", "[fgsm]", "--no-audit"], 2, "classes are 0 to 9"),
    ],
)
def test_what_is_asked_wrongly_is_told(run: Path, arguments: list[str], code: int, said: str) -> None:
    found, text = command("attack", str(run), "--protocol", "[fgsm]", *arguments)
    assert (found, said in text) == (code, True), text


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    code, text = command("attack", str(tmp_path), "--radii", "0.1")
    assert code == 2
    assert "no run's folder" in text


def test_a_gate_is_met(run: Path) -> None:
    assert (
        command("attack", str(run), "--radii", "0.01", "--protocol", "[fgsm]", "--fail-under", "robust@0.01=0.2", "--no-audit")[0]
        == 0
    )
