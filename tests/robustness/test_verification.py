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
from stresslens.cli.main import app
from stresslens.core.data import Split
from stresslens.robustness.verification import verify, verify_run

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
    for one in (np.array([EPS]), np.array(EPS), [EPS], torch.tensor([EPS], dtype=torch.float64)):
        assert repr(sl.verify(model, x_adv, x, y, eps=one)) == repr(recount)
    fooled = model(x_adv).argmax(1) != y
    assert recount.broken.tolist() == fooled.tolist()
    assert 5 < recount.broken.sum() < 40
    assert recount.robust.value == pytest.approx(1 - float(fooled.float().mean()))
    assert recount.clean.value == 1
    assert signs(recount) == []
    assert recount.largest <= EPS * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("kind", ["ball", "box", "finite"])
def test_what_is_out_of_bounds_does_not_count(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], kind: str
) -> None:
    model, x, y, x_adv = case
    spoiled = x_adv.clone()
    if kind == "ball":
        spoiled = x + 3 * (x_adv - x)
        spoiled = spoiled.clamp(0, 1)
    else:
        spoiled[:, 0, 0, 0] = -0.05 if kind == "box" else float("nan")
    recount = sl.verify(model, spoiled, x, y, eps=EPS)
    assert kind in signs(recount)
    outside = {"ball": (spoiled - x).flatten(1).abs().amax(1) > EPS * 1.001}.get(
        kind, torch.ones(len(x), dtype=torch.bool)
    )
    assert not recount.broken[outside.numpy()].any()


def test_eight_bits_a_claim_and_missing_images_are_told(
    case: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, x, y, x_adv = case
    recount = sl.verify(model, (x_adv * 255).to(torch.uint8), x, y, eps=EPS, claimed=0.01)
    assert {"8 bits", "claimed accuracy"} <= set(signs(recount))
    share = sl.verify(model, x_adv, x, y, eps=EPS).robust.value
    for told in (100 * share, share):
        assert "claimed accuracy" not in signs(sl.verify(model, x_adv, x, y, eps=EPS, claimed=told))
    assert "claimed accuracy" in signs(sl.verify(model, x_adv, x, y, eps=EPS, claimed=50 + 50 * share))
    with pytest.raises(sl.ConfigError, match=r"claimed.*101.0.*in percent \(66.1\)"):
        sl.verify(model, x_adv, x, y, eps=EPS, claimed=101.0)
    assert "dropped images" in signs(verify(model, x_adv, x, y, eps=EPS, n_requested=48))


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


@pytest.mark.parametrize(
    ("eps", "norm"), [([0.1] * 39 + [8.0], "linf"), ([0.1] * 39 + [-0.1], "l2"), ("wide", "linf")]
)
def test_radii_out_of_range_are_told(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], eps: Any, norm: Any
) -> None:
    model, x, y, x_adv = case
    with pytest.raises(sl.ConfigError, match=r"radius|eps is"):
        sl.verify(model, x_adv, x, y, eps=eps, norm=norm)


def kept(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> tuple[Split, dict[str, Any]]:
    """The split, and what a result of stresslens keeps of it: two images wrong unattacked,
    adversarials of the broken ones only."""
    model, x, y, x_adv = case
    labels = y.clone()
    labels[:2] = (y[:2] + 1) % 3
    rows = ((model(x_adv).argmax(1) != labels) & (model(x).argmax(1) == labels)).nonzero().flatten()
    smallest = np.full(40, np.inf)
    smallest[:2], smallest[rows] = 0, EPS
    found = {
        "adversarials": x_adv[rows].numpy(),
        "rows": rows.numpy(),
        "index": np.arange(40)[::-1].copy(),
        "radius": smallest,
    }
    backwards = Split(x.flip(0).contiguous(), labels.flip(0).contiguous(), 1.0)
    return backwards, {**found, "labels": labels.numpy()}


def test_a_result_is_counted_over_all_of_its_images(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    split, found = kept(case)
    m = len(found["rows"])
    recount = verify_run(case[0], split, found, norm="linf", eps=None, claimed=(38 - m) / 40)
    assert (recount.given, recount.robust.n, recount.robust.value) == (m, 40, (38 - m) / 40)
    assert recount.clean.value == 38 / 40
    assert recount.broken.nonzero()[0].tolist() == found["rows"].tolist()
    assert signs(recount) == []
    assert signs(verify_run(case[0], split, found, norm="linf", eps=None, claimed=1.0)) == [
        "claimed accuracy"
    ]
    nearer = verify_run(case[0], split, found, norm="linf", eps=EPS / 2)
    assert (nearer.robust.value, signs(nearer)) == (38 / 40, [])


def test_a_result_in_which_nothing_broke(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    split, found = kept(case)
    nothing = {**found, "adversarials": found["adversarials"][:0], "rows": np.zeros(0, np.int64)}
    recount = verify_run(case[0], split, nothing, norm="linf", eps=None)
    assert (recount.given, recount.robust.value, signs(recount)) == (0, 38 / 40, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": np.array([0.0, 1.0])}, "rows is float64"),
        ({"rows": np.array([0, 40])}, "rows runs from 0 to 40"),
        ({"rows": np.array([1, 1])}, "more than once"),
        ({"rows": np.array([1, 2, 3])}, "2 adversarial images but 3 rows"),
        ({"index": np.linspace(0, 1, 40)}, "index is float64"),
        ({"index": np.arange(40) + 1}, "index runs from 1 to 40"),
        ({"radius": np.ones(7)}, "radii have shape"),
        ({"labels": np.zeros((40, 2), np.int64)}, r"labels have shape \(40, 2\)"),
        ({"adversarials": np.full((2, 1, 4, 4), "x")}, "not an array of numbers"),
    ],
)
def test_a_spoiled_result_is_told(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], change: dict[str, Any], said: str
) -> None:
    split, found = kept(case)
    found = {**found, "adversarials": found["adversarials"][:2], "rows": found["rows"][:2], **change}
    with pytest.raises(sl.DataError, match=said):
        verify_run(case[0], split, found, norm="linf", eps=None)


def test_a_file_with_images_and_labels_of_its_own(case: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    """In another order than the split's. More of them than it has are told."""
    model, x, y, x_adv = case
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    found = {
        "adversarials": x_adv[order].numpy(),
        "images": x[order].numpy(),
        "labels": y[order].numpy(),
        "radius": EPS,
    }
    for split, told in ((Split(x, y, 1.0), []), (Split(x[:30], y[:30], 1.0), ["originals"])):
        recount = verify_run(model, split, found, norm="linf", eps=None)
        assert recount.broken.tolist() == sl.verify(model, x_adv, x, y, eps=EPS).broken[order].tolist()
        assert signs(recount) == told
    predicted = {**found, "index": order.numpy(), "labels": (y[order].numpy() + 1) % 3}
    assert "labels" in signs(verify_run(model, Split(x, y, 1.0), predicted, norm="linf", eps=None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.zeros((40, 1, 4, 4), np.int64)}, "images are torch.int64"),
        ({"images": np.full((40, 1, 4, 4), 255.0)}, "divide by 255"),
        ({"labels": np.zeros((40, 2), np.int64)}, "labels have shape"),
        ({"labels": np.full(40, 0.5)}, "label 0 is 0.5"),
        ({"images": None}, "40 adversarial images but 30 places"),
        ({"index": np.arange(40)}, "index runs from 0 to 39"),
    ],
)
def test_spoiled_images_of_its_own_are_told(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], change: dict[str, Any], said: str
) -> None:
    model, x, y, x_adv = case
    found = {"adversarials": x_adv.numpy(), "images": x.numpy(), "labels": y.numpy(), "radius": EPS, **change}
    with pytest.raises(sl.DataError, match=said):
        verify_run(model, Split(x[:30], y[:30], 1.0), found, norm="linf", eps=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return sl.train(
        "linear",
        "digits",
        epochs=5,
        lr=0.01,
        out=tmp_path_factory.mktemp("runs"),
        threads=1,
        precision="float32",
    ).folder


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if isinstance(result.exception, sl.StresslensError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout


@pytest.mark.slow
def test_attack_then_verify_by_command(run: Path, tmp_path: Path) -> None:
    code, text = command(
        "attack",
        str(run),
        "--radii",
        "0:0.1:0.05",
        "--images",
        "100",
        "--protocol",
        "[fgsm, pgd]",
        "--individual-attack",
        "fgsm",
        "--json",
    )
    assert code == 0
    facts = json.loads(text)
    assert [point["eps"] for point in facts["curve"]] == [0, 0.05, 0.1]
    assert facts["findings"]
    (result,) = (run / "robustness").glob("*/result.npz")
    code, text = command("verify", str(run), str(result), "--norm", "linf", "--json")
    recount = json.loads(text)
    assert code == 0
    assert recount["broken"] == recount["given"] == len(np.load(result)["rows"])
    assert recount["n"] == 100
    assert recount["robust"]["value"] == facts["curve"][-1]["robust"]["value"]
    assert [finding["audit"] for finding in recount["findings"] if finding["status"] == "sign"] == []
    claimed = str(recount["robust"]["value"])
    assert command("verify", str(run), str(result), "--norm", "linf", "--claimed", claimed)[0] == 0
    code, text = command("verify", str(run), str(result), "--norm", "linf", "--eps", "0.05", "--json")
    assert code == 0
    assert json.loads(text)["robust"]["value"] == facts["curve"][1]["robust"]["value"]
    images = np.load(result)
    far = tmp_path / "far.npz"
    np.savez(
        far,
        adversarials=1 - images["adversarials"],
        index=images["index"][images["rows"]],
        eps=0.05,
        norm="linf",
    )
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
    assert code == 3
    assert "labels" in text


@pytest.mark.breadth(6)
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
        (["--radii", "0.1", "--target", "12", "--protocol", "[fgsm]", "--no-audit"], 2, "they are 0 to 9"),
    ],
)
def test_what_is_asked_wrongly_is_told(run: Path, arguments: list[str], code: int, said: str) -> None:
    found, text = command("attack", str(run), "--protocol", "[fgsm]", *arguments)
    assert (found, said in text) == (code, True), text


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    code, text = command("attack", str(tmp_path), "--radii", "0.1")
    assert code == 2
    assert "is not the folder of a run" in text


def test_a_gate_is_met(run: Path) -> None:
    assert (
        command(
            "attack",
            str(run),
            "--radii",
            "0.01",
            "--protocol",
            "[fgsm]",
            "--fail-under",
            "robust@0.01=0.2",
            "--no-audit",
        )[0]
        == 0
    )
