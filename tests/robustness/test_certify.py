"""The curve of certified accuracy: recounted, resumed, read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from stresslens.config.schema import Robustness
from stresslens.config.threat_model import resolved_threat_model
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.plugins.certificates import smoothing
from stresslens.robustness import certify

QUICK = {"smoothing": {"n": 200, "n0": 20}}


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_the_curve_is_the_share_of_radii_beyond(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    ways = ["interval", QUICK]
    found = certify.certify(
        tmp_path, net(), small.test, ways, source="a", base=tmp_path, images=40, radii=[0, 0.01, 0.1]
    )
    assert [(each.certificate, each.norm, each.n) for each in found] == [
        ("interval", "linf", 40),
        ("smoothing", "l2", 40),
    ]
    for each in found:
        folder = tmp_path / f"{each.certificate}-{each.fingerprint[:8]}"
        radius = np.load(folder / "result.npz")["radius"]
        assert [level.radius for level in each.curve] == [0, 0.01, 0.1]
        values = [level.certified.value for level in each.curve]
        assert values == [pytest.approx(np.mean(radius > r)) for r in (0, 0.01, 0.1)]
        assert each.smoothed_accuracy is not None
        assert values[0] == each.smoothed_accuracy.value
        assert each.abstained == np.isnan(radius).sum()
    assert found[1].abstained > 0


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.001), (1, 0.5), (4, 0.05), (332, 1e-100)])
def test_smoothing_with_too_few_copies_is_refused_with_the_number_that_is_enough(
    small: Data, tmp_path: Path, n: int, alpha: float
) -> None:
    assert small.test is not None
    value = {"smoothing": {"n": n, "alpha": alpha}}
    with pytest.raises(ConfigError, match=f"set n to {n + 1} or more"):
        certify.certify(tmp_path, net(), small.test, [value], source="a", base=tmp_path)
    with pytest.raises(ConfigError, match=f"certificates: .*set n to {n + 1} or more"):
        resolved_threat_model(Robustness(radii=[0.1], norm="l2", certificates=[value]), tmp_path)
    assert smoothing.largest_radius(sigma=1.0, n=n + 1, alpha=alpha) > 0


def test_the_largest_radius_is_that_of_an_image_with_all_votes(small: Data, tmp_path: Path) -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    assert small.test is not None
    (found,) = certify.certify(
        tmp_path, constant, small.test, [QUICK], source="a", base=tmp_path, images=30, radii=[0, 0.4]
    )
    radius = np.load(tmp_path / f"smoothing-{found.fingerprint[:8]}" / "result.npz")["radius"]
    assert found.largest_radius == pytest.approx(0.25 * norm.ppf(0.001 ** (1 / 200)))
    assert radius.max() == pytest.approx(found.largest_radius)


def test_stopped_it_goes_on_and_finished_it_is_read(
    small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.test is not None
    whole = certify.certify(
        tmp_path / "whole", net(), small.test, [QUICK], source="a", base=tmp_path, images=20
    )
    monkeypatch.setattr(certify, "SAVE_SECONDS", 0)
    seen: list[int] = []

    def told(done: int, total: int) -> None:
        seen.append(done)
        if done == 12 and len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify.certify(
            tmp_path / "cut",
            net(),
            small.test,
            [QUICK],
            source="a",
            base=tmp_path,
            images=20,
            on_progress=told,
        )
    resumed = certify.certify(
        tmp_path / "cut", net(), small.test, [QUICK], source="a", base=tmp_path, images=20, on_progress=told
    )
    assert seen == [0, 4, 8, 12, 12, 16, 20]
    assert resumed[0].as_json() | {"cost": 0} == whole[0].as_json() | {"cost": 0}
    certify.certify(
        tmp_path / "cut", net(), small.test, [QUICK], source="a", base=tmp_path, images=20, on_progress=told
    )
    assert len(seen) == 7
    files = sorted(file.name for file in (tmp_path / "cut").rglob("*.*"))
    assert files == ["result.json", "result.npz", "timings.json"]


def test_own_certificates_say_their_norm(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    (tmp_path / "own.py").write_text(
        "from typing import Literal\n\ndef mute(x):\n    return x[:, 0, 0, 0]\n\n"
        "def wrong(x, *, norm: Literal['l2'] = 'l2'):\n    return 3\n"
    )
    with pytest.raises(ConfigError, match="does not say which norm its radii have"):
        certify.certify(tmp_path, net(), small.test, ["own.py:mute"], source="a", base=tmp_path)
    with pytest.raises(ConfigError, match="returned a int for 4 images"):
        certify.certify(tmp_path, net(), small.test, ["own.py:wrong"], source="a", base=tmp_path)
