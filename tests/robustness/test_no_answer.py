"""Scores that are not finite count as wrong: at the radius, below it, alone, recounted, corrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens import api
from stresslens.core.answers import NO_ANSWER
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.robustness import corrupt
from stresslens.robustness.certify import certify

FAR = 0.3
SPOILED = {
    "nan": lambda z: torch.full_like(z, torch.nan),
    "one nan": lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], torch.nan)], 1),
    "infinite": lambda z: torch.cat([torch.full_like(z[:, :1], torch.inf), z[:, 1:]], 1),
    "all ruled out": lambda z: torch.full_like(z, -torch.inf),
}


class Failing(nn.Module):
    """A linear model that fails where a pixel is farther than `FAR` from grey, as a logarithm does."""

    def __init__(self, how: str | None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.linear = nn.Linear(48, 3)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        if self.how is None:
            return logits
        far = ((x - 0.5).abs() > FAR).flatten(1).any(1)
        return torch.where(far[:, None], SPOILED[self.how](logits), logits)


def images(n: int = 24, spread: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + spread * (2 * torch.rand(n, 3, 4, 4, generator=generator) - 1)


X = images()
Y = Failing(None)(X).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [how if how == "nan" else pytest.param(how, marks=pytest.mark.slow) for how in SPOILED]
)
def test_no_answer_is_broken_and_smaller_radii_are_attacked_all_the_same(how: str) -> None:
    """At 0.05 no image can reach the pixels where the model fails; there the two models are one."""
    radii, alone = [0.02, 0.05, 0.25], ["fgsm"]
    plain, failing = (
        api.attack(Failing(each), X, Y, radii=radii, individual_attacks=alone) for each in (None, how)
    )
    for eps in radii:
        assert failing.robust_accuracy(eps).value <= plain.robust_accuracy(eps).value
    assert failing.robust_accuracy(0.05) == plain.robust_accuracy(0.05)
    assert failing.robust_accuracy(0.25).value == 0
    (fgsm,) = failing.result.individual_attacks
    assert fgsm.rows[-1].accuracy.value == 0  # FGSM at 0.25 leaves the range where the model answers
    missing = failing.arrays["adversarial_prediction"] == NO_ANSWER
    assert (failing.arrays["adversarial_confidence"][missing] == 0).all()
    assert failing.result.curve[-1].no_answer == failing.no_answer.sum() == missing.sum()
    (found,) = [finding for finding in failing.findings if finding.audit == "no answer"]
    assert (found.status, "NaN" in found.evidence) == ("sign", True)
    (nothing,) = [finding for finding in plain.findings if finding.audit == "no answer"]
    assert nothing.status == "no sign"


def test_images_without_an_answer_are_wrong_before_any_attack() -> None:
    x = X.clone()
    x[:10, 0, 0, 0] = 1.0
    found = api.attack(Failing("nan"), x, Y, radii=[0.001], protocol=["fgsm"])
    assert (found.minimal_radius[:10] == 0).all()
    assert (found.arrays["clean_prediction"][:10] == NO_ANSWER).all()
    (said,) = [finding for finding in found.findings if finding.audit == "no answer"]
    assert said.severity == "serious"
    assert "10 of 24 images are not finite (NaN or infinity) without attack" in said.evidence
    x[:] = 1.0
    with pytest.raises(ConfigError, match="NaN or infinity for all 8 images"):
        api.attack(Failing("nan"), x, Y, radii=[0.001])


@pytest.mark.parametrize("success", ["untargeted", "target"])
def test_no_answer_is_not_the_target(success: str) -> None:
    found = api.attack(
        Failing("nan"),
        X,
        Y,
        radii=[0.25],
        protocol=["pgd"],
        target="least_likely",
        success=success,
        audit=False,
    )
    answers = found.arrays["adversarial_prediction"]
    assert (answers == NO_ANSWER).any() == (success == "untargeted")


@pytest.mark.slow
def test_a_class_that_is_ruled_out_is_an_answer() -> None:
    """A masked class changes nothing: neither the attack nor the audits."""

    class Masked(Failing):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((len(x), 2), -torch.inf)], 1)

    plain, masked = (
        api.attack(net(None), X, Y, radii=[0.02, 0.05], protocol=["fgsm", "pgd", "apgd", "fab"])
        for net in (Failing, Masked)
    )
    assert [level.robust for level in plain.result.curve] == [level.robust for level in masked.result.curve]
    assert masked.result.compute.passes == 1
    assert not [f.audit for f in masked.findings if f.severity == "serious"]
    scores = api.evaluate(Masked(None), X, Y)
    assert scores["accuracy"].value == 1
    assert "no_answer" not in scores


@pytest.mark.parametrize("how", SPOILED)
def test_a_recount_counts_it_as_broken_and_says_so(how: str) -> None:
    far = (X + 0.25 * (X - 0.5).sign()).clamp(0, 1)
    assert Failing("nan")(far).isnan().all()
    found = api.verify(Failing(how), far, X, Y, eps=0.25)
    assert found.robust.value == 0
    assert [f.severity for f in found.findings if f.audit == "no answer"] == ["serious"]
    plain = api.verify(Failing(None), X, X, Y, eps=0.25)
    assert [f.status for f in plain.findings if f.audit == "no answer"] == ["no sign"]


def test_a_corrupted_image_without_an_answer_is_wrong(tmp_path: Path) -> None:
    split = Split(X, torch.zeros(len(X), dtype=torch.int64), 1.0)  # class 0, which the argmax of NaN names
    kinds = [{"noise": {"kind": "impulse"}}]
    found = corrupt.corrupt(tmp_path, Failing("nan"), split, kinds, source="a", base=tmp_path)
    worst = found.corruptions[0].severities[-1]
    assert worst.accuracy.value == 0
    assert worst.no_answer > 20
    assert found.no_answer == 0
    assert not np.load(tmp_path / "result.npz")["right"][0, -1].any()


def test_noisy_copies_without_an_answer_certify_nothing(tmp_path: Path) -> None:
    split = Split(X[:4], torch.zeros(4, dtype=torch.int64), 1.0)
    smoothing = {"smoothing": {"sigma": 1.0, "n": 100, "n0": 20}}
    with pytest.warns(UserWarning, match="no answer"):
        (found,) = certify(tmp_path, Failing("nan"), split, [smoothing], source="a", base=tmp_path)
    assert found.abstained == 4
    assert found.no_answer == 0
    x = X[:4].clone()
    x[0, 0, 0, 0] = 1.0
    with pytest.warns(UserWarning, match="no answer"):
        (found,) = certify(
            tmp_path / "b",
            Failing("nan"),
            Split(x, split.labels, 1.0),
            [smoothing],
            source="b",
            base=tmp_path,
        )
    assert found.no_answer == 1
