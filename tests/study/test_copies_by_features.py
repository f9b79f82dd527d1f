"""Copies of held-out images are found by the features of a run, and nothing else is called a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checked_data import photographs, with_images
from torch import nn

import stresslens as sl
from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.evaluation.feature_duplicates import AUDIT, feature_finding
from stresslens.evaluation.near_duplicates import COPIES

Type = Callable[..., tuple[int, str, str]]
ROWS = list(range(8))


class Pixels(nn.Module):
    """A network whose features are random sums of the pixels, if `symmetric` also of the mirror image."""

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__()
        self.symmetric = symmetric
        torch.manual_seed(0)
        self.mix = nn.Linear(3 * 32 * 32, 64, bias=False)
        self.head = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix((x + x.flip(3) if self.symmetric else x).flatten(1)))
        return logits


def leaky() -> Data:
    """Of whose test images eight are darker training images."""
    data = photographs()
    copies = (data.train.images[30:38].float() * 0.9).to(torch.uint8)
    return with_images(data, "test", ROWS, copies)


def test_copies_are_found_and_recall_and_false_pairs_are_said() -> None:
    found = feature_finding(leaky(), Pixels(), "pixels")
    assert (found.status, found.severity, found.n) == ("sign", "minor", 240)
    assert set(found.items) == {f"test[{k}] = train[{30 + k}]" for k in ROWS}
    assert found.evidence.startswith(
        "8 of 48 test images may have a copy in an earlier split (8 of these 8 have one by pixels as well): "
    )
    assert "of 26,796 pairs of images that are no copies none is above" in found.evidence  # 232·231/2
    assert sorted(found.places[1::2]) == [192 + k for k in ROWS]
    for kind in COPIES:
        assert f" {kind}" in found.evidence


def test_pictures_that_are_there_three_times_do_not_raise_the_threshold() -> None:
    data = leaky()
    thrice = with_images(data, "train", [0, 1, 2], data.train.images[[0, 0, 0]])
    found = feature_finding(thrice, Pixels(), "pixels")
    assert {f"test[{k}] = train[{30 + k}]" for k in ROWS} <= set(found.items)


def test_a_network_in_half_precision() -> None:
    found = feature_finding(leaky(), Pixels().to(torch.bfloat16), "pixels")
    assert found.status == "sign"


def test_none_is_found_where_there_is_none() -> None:
    found = feature_finding(photographs(seed=5), Pixels(), "pixels")
    assert found.status == "no sign"
    assert "none found: cosines above" in found.evidence


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_recall_is_that_of_the_network(symmetric: bool) -> None:
    """Mirrored copies are found by a network for which a picture and its mirror image are the same."""
    evidence = feature_finding(photographs(), Pixels(symmetric), "net").evidence
    found = {kind: int(evidence.split(f" {kind}")[0].rsplit(" ", 1)[1]) for kind in COPIES}
    assert found["halved and enlarged"] > 190
    assert (found["mirrored"] == 200) == symmetric
    assert (found["mirrored"] < 20) == (not symmetric)


def test_look_alikes_decide_the_threshold_where_pixels_tell_no_copies(small: Data) -> None:
    """Of handwriting no pair but exact copies is left out."""
    n = sum(map(len, small.splits.values()))
    found = feature_finding(small, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "pixels")
    assert f"of {n * (n - 1) // 2:,} pairs of images that are no copies none is above" in found.evidence


@pytest.mark.slow
def test_the_command(tmp_path: Path, type_: Type) -> None:
    run = sl.train({"mlp": {"widths": [32]}}, leaky(), epochs=1, out=tmp_path / "runs", progress=False)
    findings: list[Finding] = list(sl.check_data(leaky(), features=run, progress=False))
    assert findings[-1].audit == AUDIT
    digits = sl.train("linear", "digits", epochs=0, out=tmp_path / "digits", progress=False)
    code, out, err = type_("data", "check", "digits", "--features", str(digits.folder))
    assert code == 0, err
    assert AUDIT in out
    code, _, err = type_("data", "check", "digits", "--features", str(run.folder))
    assert code == 2
    assert "has images of 1×8×8 (channels, height, width), and" in " ".join(err.split())
    code, _, err = type_("data", "check", "digits", "--features", "{timm: {name: resnet18}}")
    assert code == 2
    assert "is no run's folder" in " ".join(err.split())
