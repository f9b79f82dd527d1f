"""Out-of-distribution images are marked, and in-distribution images no more often than stated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import ood, scores
from stresslens.evaluation.ood import Features, OODDetector, fit_ood_detector, observed, ood_p_values
from stresslens.evaluation.saved_model import open_model
from stresslens.plugins.datasets.digits import digits
from stresslens.study import stages

ALL = {
    "linear": "linear",
    "mlp": {"mlp": {"widths": [32]}},
    "cnn": {"simple_cnn": {"channels": 8, "hidden": 80}},
}


@pytest.fixture(scope="module", params=ALL)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, nn.Module, Data]:
    """A model of each kind on the whole of digits, as a run leaves it."""
    from stresslens.api import train

    folder = tmp_path_factory.mktemp("likeness")
    run = train(
        ALL[request.param],
        "digits",
        out=folder,
        name=request.param,
        epochs=8,
        lr=0.003,
        threads=1,
        precision="float32",
    )
    return RunFolder(run.folder), open_model(RunFolder(run.folder), trust=True), digits()


def floats(split: Split | None) -> Tensor:
    assert split is not None
    return split.floats(split.images)


@pytest.mark.breadth(1)
def test_false_alarms_on_held_out_images_are_as_rare_as_stated(
    trained: tuple[RunFolder, nn.Module, Data],
) -> None:
    folder, model, data = trained
    found = OODDetector.load(folder.likeness)
    p = ood_p_values(found, model, floats(data.test))
    assert found.rate == 0.01
    assert p.min() >= 1 / 360
    assert p.max() <= 1
    assert (p <= found.rate).sum() <= stats.binom.ppf(0.999, len(p), 0.01)
    assert stats.kstest(p, "uniform").pvalue > 1e-4  # p-values of images that belong are spread evenly


def test_what_is_foreign_is_mostly_flagged(trained: tuple[RunFolder, nn.Module, Data]) -> None:
    folder, model, data = trained
    found = OODDetector.load(folder.likeness)
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    grey = torch.linspace(0, 1, 50)[:, None, None, None].expand(50, 1, 8, 8)
    for foreign in (noise, grey, 1 - floats(data.test)):
        assert (ood_p_values(found, model, foreign) <= found.rate).mean() > 0.95


def test_a_run_says_its_rate_and_the_saved_arrays_say_the_same(
    trained: tuple[RunFolder, nn.Module, Data], tmp_path: Path
) -> None:
    from stresslens.evaluation.record import read_record

    folder, model, data = trained
    found = OODDetector.load(folder.likeness)
    assert read_record(folder).likeness.as_json() == {"rate": 0.01, "n": 359, "fitted_on": len(data.train)}
    found.save(tmp_path / "likeness.npz")
    x = floats(data.test)[:40]
    assert np.array_equal(
        ood_p_values(OODDetector.load(tmp_path / "likeness.npz"), model, x), ood_p_values(found, model, x)
    )


def test_a_pass_is_watched_and_nothing_stays_behind(small: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)).train()
    predictions, sample = observed(model, small.train, lambda: scores.predictions_of(model, small.train))
    assert np.array_equal(predictions.scores, scores.predictions_of(model, small.train).scores)
    x = floats(small.train)
    assert sample.features == pytest.approx(model[:3](x).detach().numpy(), abs=1e-6)
    assert sample.coarse[:, :64] == pytest.approx(x.flatten(1).numpy())
    assert np.array_equal(sample.labels, small.train.labels.numpy())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_of_many_images_the_same_are_kept_in_order(small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ood, "MOST_IMAGES", 30)
    monkeypatch.setattr(ood, "BATCH", 30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def sampled(size: int) -> Features:
        return observed(model, small.train, lambda: [model(batch.x) for batch in small.train.batches(size)])[
            1
        ]

    sample, again = sampled(7), sampled(120)
    assert len(sample.labels) == 30
    assert np.array_equal(sample.features, again.features)
    everything = floats(small.train).flatten(1).numpy()
    places = [int(np.flatnonzero((everything == row).all(1))[0]) for row in sample.features]
    assert places == sorted(places)
    assert np.array_equal(sample.labels, small.train.labels.numpy()[places])


class Convolutions(nn.Module):
    """Without a linear layer, and with an odd number of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3))


class Tokens(nn.Module):
    """A linear layer on each of several tokens, run last."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(33, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(2)[:, :, :33]).mean(1)


@pytest.mark.parametrize(
    ("model", "width"), [(Convolutions(), 4), (Tokens(), 33)], ids=["no linear layer", "tokens"]
)
def test_features_of_other_nets(model: nn.Module, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(60, 3, 9, 13, generator=generator), torch.arange(60) % 4
    split = Split(x, labels, 1.0)
    sample = observed(model, split, lambda: model(x))[1]
    assert sample.features.shape == (60, width)
    assert sample.coarse.shape == (60, 3 * 8 * 8 + 3)
    assert ood_p_values(fit_ood_detector(sample, sample), model, x[:5]).shape == (5,)


def gaussian(n: int, seed: int) -> Features:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    features, coarse = (
        generator.normal(size=(n, d)).astype(np.float32) + 4 * labels[:, None] for d in (6, 5)
    )
    return Features(features.astype(np.float32), coarse.astype(np.float32), labels)


@pytest.mark.parametrize(("held_out", "rate"), [(1, 0.5), (49, 0.02), (98, 1 / 99), (99, 0.01), (1000, 0.01)])
def test_few_validation_images_state_the_rate_that_they_allow(held_out: int, rate: float) -> None:
    found = fit_ood_detector(gaussian(300, 0), gaussian(held_out, 1))
    assert found.rate == pytest.approx(rate)
    alarms = np.mean(found.p_values(gaussian(20_000, 2)) <= found.rate)
    beyond = 1 - stats.beta.ppf(
        [0.999, 0.001], held_out + 1 - int(rate * (held_out + 1) + 1e-9), int(rate * (held_out + 1) + 1e-9)
    )
    assert (
        beyond[0] <= alarms <= beyond[1]
    )  # given these validation images the rate varies as a beta (Vovk 2012)
    far = gaussian(50, 3)
    assert (found.p_values(replace(far, coarse=far.coarse + 30)) <= found.rate).all()


def test_distances_are_those_of_the_covariance() -> None:
    sample = gaussian(400, 5)
    cloud = ood.ClassGaussians.fitted(sample.features, sample.labels, axes=64)
    means = np.stack([sample.features[sample.labels == k].mean(0) for k in range(3)])
    inside = sample.features - means[sample.labels]
    covariance = inside.T @ inside / len(inside)
    shrunk = (1 - ood.SHRINKAGE) * covariance + ood.SHRINKAGE * np.trace(covariance) / 6 * np.eye(6)
    slow = [
        min(np.sqrt((x - m) @ np.linalg.inv(shrunk) @ (x - m)) for m in means) for x in sample.features[:20]
    ]
    assert cloud.distances(sample.features[:20])[:, 0] == pytest.approx(slow, rel=1e-3)


def test_without_validation_there_is_none_and_it_says_why(task_of, small: Data) -> None:  # type: ignore[no-untyped-def]
    task = task_of(data=replace(small, validation=None))
    record = stages.carry_out(task)
    assert record.likeness.rate is None
    assert "validation" in record.likeness.why
    with pytest.raises(ConfigError, match="without it out-of-distribution images cannot be detected"):
        OODDetector.load(RunFolder(task.folder).likeness)


@pytest.mark.parametrize("content", [b"", b"no archive"], ids=["empty", "text"])
def test_a_damaged_file_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "likeness.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        OODDetector.load(tmp_path / "likeness.npz")
    np.savez(tmp_path / "other.npz", centre=np.zeros(3))
    with pytest.raises(ConfigError, match="is damaged: it has no array"):
        OODDetector.load(tmp_path / "other.npz")


def test_images_that_are_all_the_same() -> None:
    sample = Features(np.ones((40, 5), np.float32), np.ones((40, 6), np.float32), np.arange(40) % 2)
    found = fit_ood_detector(sample, sample)
    assert (found.p_values(sample) == 1).all()
    assert (found.p_values(replace(sample, coarse=sample.coarse + 1)) <= found.rate).all()


def test_fewer_images_than_features() -> None:
    generator = np.random.default_rng(0)
    features, coarse = (generator.normal(size=(20, d)).astype(np.float32) for d in (300, 195))
    sample = Features(features, coarse, np.arange(20) % 4)
    found = fit_ood_detector(sample, sample)
    assert (found.p_values(replace(sample, features=features * 5)) <= found.rate).mean() > 0.9


def features_like(values: np.ndarray) -> Features:
    n = len(values)
    coarse = np.random.default_rng(1).normal(size=(n, 4)).astype(np.float32)
    return Features(values.astype(np.float32), coarse, np.arange(n) % 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30], ids=str)
def test_features_that_overflow_are_left_out_or_told(value: float) -> None:
    generator = np.random.default_rng(0)
    train, held_out = generator.normal(size=(60, 3)), generator.normal(size=(40, 3))
    reference = fit_ood_detector(features_like(train), features_like(held_out))
    spoiled = train.copy()
    spoiled[:5, 1] = value
    found = fit_ood_detector(features_like(spoiled), features_like(held_out))
    assert np.isfinite(found.calibration).all()
    far = held_out.copy()
    far[0, 2] = value
    p = found.p_values(features_like(far))
    assert p[0] == 1 / 41  # no distance is the farthest
    assert np.isfinite(p).all()
    assert np.abs(p[1:] - reference.p_values(features_like(held_out))[1:]).max() < 0.2
    spoiled[:40] = value
    with pytest.raises(DataError, match="40 of 60 training images are not finite"):
        fit_ood_detector(features_like(spoiled), features_like(held_out))
