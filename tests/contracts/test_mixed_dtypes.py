"""The public functions on nets of several dtypes, and on modules without numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixed_dtypes import CLASSES, FIXED, OWN, TAKEN, Unmatched, images, made
from torch import nn

import stresslens as sl
from stresslens.core.errors import StresslensError

every = pytest.mark.parametrize("net", TAKEN, ids=lambda net: net.__name__)
PGD: Any = [{"pgd": {"steps": 2}}]


@pytest.mark.breadth(4)
@every
def test_a_net_is_evaluated_attacked_and_explained_by_its_own_answers(net: Callable[[], nn.Module]) -> None:
    model, (x, y) = made(net), images()
    with torch.no_grad():
        logits = model(x.to(TAKEN[net])).double()
    accuracy = float((logits.argmax(1) == y).double().mean())
    assert np.allclose(sl.predict(model, x), logits.softmax(1).numpy(), atol=1e-3)
    assert sl.evaluate(model, x, y)["accuracy"].value == pytest.approx(accuracy)
    attacked = sl.attack(model, x, y, radii=[0, 0.1], protocol=PGD, audit=False)
    assert attacked.facts["clean"]["value"] == pytest.approx(accuracy)
    assert sl.verify(model, x, x, y, eps=0.1).clean.value == pytest.approx(accuracy)
    assert np.isfinite(sl.explain(model, x[:2], "saliency").maps).all()


@pytest.mark.breadth(2)
@pytest.mark.parametrize("net", [net for net in TAKEN if net not in FIXED], ids=lambda net: net.__name__)
def test_a_net_is_trained_and_opened_again(net: Callable[[], nn.Module], tmp_path: Path) -> None:
    model, (x, y) = made(net), images(24)
    data = sl.Data.from_arrays(x, y, validation=0.25, test=0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = sl.train(model, data, epochs=2, batch_size=8, ema=0.5, clip=1.0, out=tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trained = run.model()
    kept = {name.removeprefix("net."): value for name, value in trained.state_dict().items()}
    assert any(not torch.equal(kept[name].to(value.dtype), value) for name, value in before.items())
    if net in OWN:
        assert {name: kept[name].dtype for name in before} == {n: v.dtype for n, v in before.items()}
    probabilities = sl.predict(trained, x)
    assert np.array_equal(sl.predict(sl.load(run.folder, module=model), x), probabilities)
    assert sl.attack(trained, x, y, radii=[0.1], protocol=PGD, audit=False).facts["clean"]["value"] >= 0
    assert np.isfinite(sl.explain(trained, x[:2], "saliency").maps).all()


@pytest.mark.slow
@pytest.mark.parametrize("net", sorted(OWN, key=lambda net: net.__name__), ids=lambda net: net.__name__)
def test_a_run_of_a_net_that_casts_is_attacked_and_exported(
    net: Callable[[], nn.Module], tmp_path: Path
) -> None:
    x, y = images(24)
    data = sl.Data.from_arrays(x, y, validation=0.25, test=0.25)
    run = sl.train(made(net), data, epochs=1, batch_size=8, precision="float64", out=tmp_path / "wide")
    assert "accuracy" in run.scores("test")
    run = sl.train(made(net), data, epochs=1, batch_size=8, out=tmp_path / "usual")
    for to in ("safetensors", "torch"):
        sl.export(run, to, out=tmp_path / to)


def test_a_net_that_takes_no_images_is_refused_in_words(tmp_path: Path) -> None:
    model, (x, y) = made(Unmatched), images(24)
    data = sl.Data.from_arrays(x, y)
    for call in (
        lambda: sl.evaluate(model, x, y),
        lambda: sl.predict(model, x),
        lambda: sl.attack(model, x, y, radii=[0.1]),
        lambda: sl.verify(model, x, x, y, eps=0.1),
        lambda: sl.explain(model, x),
        lambda: sl.train(model, data, epochs=1, out=tmp_path),
    ):
        with pytest.raises(StresslensError, match=r"Unmatched cannot take images .* cast between them"):
            call()


def _on_meta(part: str) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    if part == "everything":
        return model.to("meta")
    if part == "a buffer":
        model[2].running_mean = model[2].running_mean.to("meta")
    else:
        model[3].to("meta")
    return model


@pytest.mark.breadth(1)
@pytest.mark.parametrize("part", ["everything", "a layer", "a buffer"])
def test_a_module_without_numbers_is_refused_in_words(part: str, tmp_path: Path) -> None:
    model, (x, y) = _on_meta(part), images(24)
    data = sl.Data.from_arrays(x, y)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    run = sl.train(whole, data, epochs=1, out=tmp_path / "whole")
    for call in (
        lambda: sl.evaluate(model, x, y),
        lambda: sl.predict(model, x),
        lambda: sl.attack(model, x, y, radii=[0.1]),
        lambda: sl.attack(whole, x, y, radii=[0.1], surrogate=model, protocol=["transfer"]),
        lambda: sl.verify(model, x, x, y, eps=0.1),
        lambda: sl.explain(model, x),
        lambda: sl.train(model, data, epochs=1, out=tmp_path),
        lambda: sl.load(run.folder, module=model),
        lambda: sl.export(run, "safetensors", out=tmp_path / "export", module=model),
    ):
        with pytest.raises(StresslensError, match="on the device meta, which holds no numbers"):
            call()
