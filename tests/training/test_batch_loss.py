"""Balance: weights in the loss and balanced sampling, against the obvious ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from stresslens.config import study_file
from stresslens.config.schema import Train
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, Problems
from stresslens.plugins.datasets.digits import digits
from stresslens.plugins.losses.cross_entropy import cross_entropy
from stresslens.plugins.losses.mse import mse
from stresslens.study import stages
from stresslens.training.batch_loss import class_weights, objective_for, weighted
from stresslens.training.task import Task


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_every_class_weighs_the_same_and_an_image_one_on_average(labels: list[int]) -> None:
    y = torch.tensor(labels)
    weights = class_weights(y, 6)
    assert weights[y].mean().item() == pytest.approx(1, rel=1e-5)
    totals = [weights[k].item() * labels.count(k) for k in set(labels)]
    assert totals == pytest.approx([totals[0]] * len(totals), rel=1e-5)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_weighted_cross_entropy_is_torchs(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    logits, y = (
        torch.randn(n, 5, generator=generator, requires_grad=True),
        torch.randint(0, 5, (n,), generator=generator),
    )
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1, 3.0])
    ours = weighted(cross_entropy, weights)(logits, y)
    theirs = F.cross_entropy(logits, y, weight=weights, reduction="sum") / n
    assert torch.allclose(ours, theirs)
    (mine,) = torch.autograd.grad(ours, logits, retain_graph=True)
    (other,) = torch.autograd.grad(theirs, logits)
    assert torch.allclose(mine, other, atol=1e-6)


def test_weighted_mse_and_mixed_labels_by_hand() -> None:
    logits, weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, 3.0])
    assert weighted(mse, weights)(logits, torch.tensor([0, 1])).item() == pytest.approx((1 * 0 + 3 * 0.5) / 2)
    mixed = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert weighted(mse, weights)(logits, mixed).item() == pytest.approx((1 * 0 + 2 * 0.25) / 2)


def test_an_objective_without_a_loss_of_its_own_cannot_be_weighted(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="balance: weights needs an objective that takes a loss, which by_hand does not"
    ):
        objective_for(
            Train(balance="weights", objective="by_hand"), torch.tensor([0, 1]), base=tmp_path, classes=2
        )


def unbalanced() -> Split:
    labels = torch.cat([torch.zeros(70), torch.ones(20), torch.full((10,), 3)]).long()
    return Split(torch.arange(100, dtype=torch.uint8)[:, None, None, None], labels)


def test_balanced_batches_show_every_class_as_often_and_every_image_of_it_evenly() -> None:
    split = unbalanced()
    places = torch.cat([batch.places for batch in split.batches(16, seed=1, balanced=True)])
    assert len(places) == 100
    seen = split.labels[places].bincount(minlength=4)
    assert sorted(seen.tolist()) == [0, 33, 33, 34]
    for label in (0, 1, 3):
        often = places.bincount(minlength=100)[split.labels == label]
        assert often.max() - often.min() <= 1
    again = torch.cat([batch.places for batch in split.batches(16, seed=1, balanced=True)])
    later = torch.cat([batch.places for batch in split.batches(16, seed=1, epoch=1, balanced=True)])
    assert torch.equal(places, again)
    assert not torch.equal(places, later)


def test_balanced_batches_go_on_from_any_step() -> None:
    split = unbalanced()
    whole = [batch.places for batch in split.batches(16, seed=1, balanced=True)]
    rest = [batch.places for batch in split.batches(16, seed=1, start_step=3, balanced=True)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_an_image_shown_again_is_drawn_differently() -> None:
    seen: dict[int, set[float]] = {}

    def note(x: torch.Tensor, y: torch.Tensor, draws: object) -> tuple[torch.Tensor, torch.Tensor]:
        for value, number in zip(x.flatten().mul(255).round().tolist(), draws.uniform().tolist()):  # type: ignore[attr-defined]
            seen.setdefault(int(value), set()).add(number)
        return x, y

    split = unbalanced()
    places = torch.cat([batch.places for batch in split.batches(16, seed=1, balanced=True, augment=[note])])
    for place, times in enumerate(places.bincount(minlength=100).tolist()):
        assert len(seen.get(place, set())) == times


def test_balance_finds_the_rare_class(task_of: Callable[..., Task], tmp_path: Path) -> None:
    """Eights against ones, 6 of 100 images: balance in either way finds more of the rare class than
    none does."""
    data = digits()
    assert data.test is not None
    wanted = torch.tensor([1, 8])
    parts = {
        name: split.select(torch.isin(split.labels, wanted).nonzero().flatten())
        for name, split in data.splits.items()
    }
    parts = {name: replace(split, labels=(split.labels == 8).long()) for name, split in parts.items()}
    ones, eights = ((parts["train"].labels == k).nonzero().flatten() for k in (0, 1))
    parts["train"] = parts["train"].select(torch.cat([ones[:94], eights[:6]]))
    rare = replace(data, classes=("one", "eight"), name="rare eights", **parts)  # type: ignore[arg-type]
    recall = {}
    for balance in ("none", "weights", "sampling"):
        task = task_of(
            data=rare,
            folder=tmp_path / balance / "seed-0",
            epochs=20,
            select="last",
            watch=[],
            balance=balance,
        )
        recall[balance] = stages.carry_out(task).per_class["test"].recall[1].value
    assert recall["weights"] > recall["none"] + 0.05
    assert recall["sampling"] > recall["none"] + 0.05


@pytest.mark.parametrize("wrong", [{"batch_size": "full"}, {"shuffle": False}])
def test_sampling_without_shuffled_batches_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(Problems, match="balance: sampling draws the images"):
        study_file.variant_config_from({"train": {"balance": "sampling", **wrong}}, tmp_path)
