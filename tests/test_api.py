"""stresslens from Python: what docs/python.md shows is executed, and every public name works twice."""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.errors import ConfigError
from stresslens.robustness.attack_run import robustness_config

ROOT = Path(__file__).parents[1]


def blocks(file: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", file.read_text(), flags=re.S)


@pytest.mark.parametrize(
    "file",
    [pytest.param(ROOT / "docs" / "python.md", marks=pytest.mark.slow), ROOT / "README.md"],
    ids=lambda file: file.name,
)
def test_documented_code_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(file)
    assert found
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for k, block in enumerate(found):
        cell = f"<{file.name} {k}>"
        linecache.cache[cell] = (len(block), None, block.splitlines(keepends=True), cell)
        exec(compile(block, cell, "exec"), names)


@pytest.mark.slow
def test_own_module_and_tensors_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    images = (random.random((300, 3, 6, 5)) * 0.3 + labels[:, None, None, None] * 0.3).astype(np.float32)
    data = sl.Data.from_arrays(images, labels, classes=["dark", "grey", "bright"])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(90, 3))
    before = net[1].weight.detach().clone()
    options = {"epochs": 20, "lr": 0.01, "precision": "float32", "out": tmp_path / "out"}
    first = sl.train(net, data, **options)
    stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
    second = sl.train(net, data, **options)
    assert (second.folder / "model.safetensors").stat().st_mtime_ns == stamp, (
        "the finished run was taken, not trained again"
    )
    assert net[1].weight.equal(before)
    assert net.training
    assert first.scores()["accuracy"].value > 0.9
    assert data.test is not None
    for run in (first, second):
        model = run.model()
        again = sl.evaluate(model, data.test)
        assert again["accuracy"] == run.scores()["accuracy"]
        probabilities = sl.predict(model, images[:7])
        assert probabilities.sum(1) == pytest.approx(np.ones(7))
        assert (
            run.predictions().probabilities.argmax(1)
            == sl.predict(model, data.test.floats(data.test.images)).argmax(1)
        ).all()
        assert sl.load(run.folder, module=nn.Sequential(nn.Flatten(), nn.Linear(90, 3)))(
            torch.zeros(1, 3, 6, 5)
        ).shape == (1, 3)
        assert sl.write_report(run.folder).is_file()
    with pytest.raises(sl.ConfigError, match="pass it as `module=`"):
        sl.load(first.folder)


def test_evaluate_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(0.5))
    model[2].eval()
    images, labels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.arange(40) % 4
    state = torch.get_rng_state()
    first, second = sl.evaluate(model, images, labels), sl.evaluate(model, images, labels)
    assert first == second
    assert (model.training, model[1].training, model[2].training) == (True, True, False)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.full((4, 1, 4, 4), 3.0), torch.zeros(4, dtype=torch.int64), r"leave \[0, 1\]"),
        (torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 2, 9]), "4 outputs"),
        (torch.zeros(4, 1, 4, 4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "torch.int64"),
        (torch.zeros(4, 1, 5, 5), torch.zeros(4, dtype=torch.int64), "cannot take images of shape"),
        (torch.full((4, 1, 4, 4), float("nan")), torch.zeros(4, dtype=torch.int64), "NaN"),
    ],
)
def test_evaluate_refuses_what_it_cannot_score(
    images: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(sl.StresslensError, match=message):
        sl.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), images, labels)


def test_run_twice_skips_what_is_finished(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\ntrain: {epochs: 1, precision: float32}\nrepeats: 2\n"
    )
    first = sl.run(file, out=tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in first.rglob("model.safetensors")}
    assert len(stamps) == 2
    assert sl.run(file, out=tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("model.safetensors")} == stamps


def test_every_public_name_is_there() -> None:
    for name in sl.__all__:
        assert getattr(sl, name) is getattr(sl, name)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = sl.trian  # type: ignore[attr-defined]


ARRAYS = [
    np.linspace(0, 0.1, 3),
    list(np.linspace(0, 0.1, 3)),
    torch.tensor([0, 0.05, 0.1], dtype=torch.float64),
]


@pytest.mark.parametrize("radii", ARRAYS)
def test_settings_of_an_attack_may_be_arrays(radii: Any) -> None:
    asked = robustness_config(
        {"radii": radii, "seed": np.int64(3), "protocol": [{"pgd": {"steps": np.int32(5)}}]}
    )
    assert asked == robustness_config(
        {"radii": [0.0, 0.05, 0.1], "seed": 3, "protocol": [{"pgd": {"steps": 5}}]}
    )
    assert robustness_config({"radii": np.float32(0.25)}).radii == 0.25


def test_a_seed_may_be_a_number_of_numpy(tmp_path: Path) -> None:
    x = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    data = sl.Data.from_arrays(x, [0, 1] * 10)
    run = sl.train("linear", data, epochs=1, seed=np.int64(1), out=tmp_path)  # type: ignore[arg-type]
    assert run.folder.name == "seed-1"
    for seed in (True, np.True_, 1.0, "1", -1, 2**32, None):
        with pytest.raises(ConfigError, match="expected a whole number from 0 up"):
            sl.train("linear", data, epochs=1, seed=seed, out=tmp_path)  # type: ignore[arg-type]


def test_an_attack_of_some_of_the_images() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    x = torch.rand(20, 3, 4, 4)
    few = sl.attack(net, x, net(x).argmax(1), radii=[0.05], protocol=["fgsm"], audit=False, n_images=5)
    assert few.robust_accuracy(0.05).n == 5
    with pytest.raises(ConfigError, match=r"images: .* 1, or 'all', got 0"):
        sl.attack(net, x, net(x).argmax(1), radii=[0.05], n_images=0)


@pytest.mark.parametrize(
    "values", [{"radii": object()}, {"radii": 0.1, "individual_attacks": [{"pgd": {(1, 2): 3}}]}]
)
def test_settings_that_cannot_be_written_down_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="setting of an attack"):
        robustness_config(values)


@pytest.mark.parametrize("option", [{"certificates": ["interval"]}, {"split": "validation"}])
def test_attack_refuses_what_it_would_leave_out(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"attack has no option '{next(iter(option))}'"):
        sl.attack(
            torch.nn.Flatten(),
            torch.zeros(2, 1, 2, 2),
            torch.zeros(2, dtype=torch.int64),
            radii=0.1,
            **option,
        )


def test_an_attack_without_radii_is_told_in_words() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match="give radii in pixel units, for example radii='8/255'"):
        sl.attack(net, torch.rand(2, 1, 2, 2), [0, 1])
