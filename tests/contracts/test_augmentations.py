"""What every augmentation keeps to; tests/config/test_registry.py checks the signatures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from stresslens.config import registry
from stresslens.core.draws import Draws

CLASSES = 5
MIXING = {"mixup", "cutmix", "random_choice"}
"""Those that blend images of a batch, so that a result depends on who else is in it."""
every = pytest.mark.parametrize("name", registry.names("augmentations"))
alone = pytest.mark.parametrize(
    "name", [name for name in registry.names("augmentations") if name not in MIXING]
)


def batch(
    n: int = 12, shape: tuple[int, int, int] = (3, 8, 6), dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(n), dtype=dtype), torch.arange(
        n
    ) % CLASSES


def apply(
    name: str, x: Tensor, y: Tensor, index: Tensor | None = None, *, seed: int = 0, **options: Any
) -> tuple[Tensor, Tensor]:
    draws = Draws(seed, torch.arange(len(x)) if index is None else index)
    found: tuple[Tensor, Tensor] = registry.resolve("augmentations", {name: options})(
        x=x, y=y, draws=draws, classes=CLASSES
    )
    return found


@pytest.mark.breadth
@every
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 7])
def test_shape_type_and_range_are_kept(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, n: int
) -> None:
    x, y = batch(n, shape, dtype)
    before = x.clone()
    new, labels = apply(name, x, y)
    assert new.shape == x.shape
    assert new.dtype == dtype
    assert new.min() >= 0
    assert new.max() <= 1
    assert torch.equal(x, before)  # resident splits hand out views
    assert torch.equal(labels, y) if name not in MIXING else labels.shape == (n, CLASSES)


@every
def test_something_changes_and_the_seed_decides_what(name: str) -> None:
    x, y = batch(40)
    first, again, other = (apply(name, x, y, seed=seed)[0] for seed in (1, 1, 2))
    assert not torch.equal(first, x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every
def test_the_global_random_state_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    apply(name, *batch())
    assert torch.equal(torch.get_rng_state(), before)


@alone
def test_an_image_becomes_the_same_whatever_stands_beside_it(name: str) -> None:
    x, y = batch(30)
    index = torch.arange(100, 130)
    whole, _ = apply(name, x, y, index)
    rows = torch.tensor([17, 3, 29, 0])
    part, _ = apply(name, x[rows], y[rows], index[rows])
    assert torch.equal(part, whole[rows])


@alone
def test_soft_labels_pass_through(name: str) -> None:
    x, y = batch()
    soft = F.one_hot(y, CLASSES).float()
    assert torch.equal(apply(name, x, soft)[1], soft)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flip", {"chance": 0.0}),
        ("crop", {"padding": 0}),
        ("cutout", {"size": 0}),
        ("rand_augment", {"operations": 0}),
        ("color_jitter", {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}),
        ("gaussian_blur", {"kernel_size": 1}),
    ],
    ids=str,
)
def test_nothing_asked_is_nothing_done(name: str, options: dict[str, Any]) -> None:
    x, y = batch()
    new, labels = apply(name, x, y, **options)
    assert torch.equal(new, x)
    assert torch.equal(labels, y)


@pytest.mark.breadth(6)
@every
def test_only_some_images_change(name: str) -> None:
    x, y = batch(2000, (3, 16, 16))
    new, labels = apply(name, x, y, chance=0.3)
    kept = (new == x).flatten(1).all(1)
    always = (apply(name, x, y, chance=1.0)[0] != x).flatten(1).any(1).double().mean()
    assert abs((~kept).double().mean() - 0.3 * always) < 0.045  # four standard errors
    hard = labels if labels.ndim == 1 else labels.argmax(1)
    assert torch.equal(hard[kept], y[kept])
    assert labels.ndim == 1 or bool((labels[kept].amax(1) == 1).all())
    none, labels = apply(name, x, y, chance=0.0)
    assert torch.equal(none, x)
    assert torch.equal(labels if labels.ndim == 1 else labels.argmax(1), y)


def test_flip_mirrors_left_and_right_by_chance() -> None:
    x, y = batch(4000, (1, 2, 3))
    assert torch.equal(apply("flip", x, y, chance=1.0)[0], x.flip(-1))
    new, _ = apply("flip", x, y, chance=0.3)
    mirrored = (new == x.flip(-1)).flatten(1).all(1)
    assert ((new == x).flatten(1).all(1) | mirrored).all()
    assert abs(mirrored.double().mean() - 0.3) < 0.03  # four standard errors


@pytest.mark.parametrize("padding", [1, 4, 20])
def test_crop_shifts_each_image_as_a_whole(padding: int) -> None:
    x, y = batch(300, (2, 5, 7))
    new, _ = apply("crop", x, y, padding=padding)
    padded = F.pad(x, [padding] * 4)
    shifts = [(r, c) for r in range(2 * padding + 1) for c in range(2 * padding + 1)]
    windows = torch.stack([padded[:, :, r : r + 5, c : c + 7] for r, c in shifts])
    matches = (windows == new).flatten(2).all(2)  # (shifts, N)
    assert matches.any(0).all()
    if padding == 1:
        assert matches.any(1).all()  # all nine shifts occur
        assert matches[:, matches.sum(0) == 1].double().mean(1).max() < 0.25  # and none often


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_cutout_blackens_one_square(size: int) -> None:
    x = torch.ones(400, 3, 6, 7)
    new, _ = apply("cutout", x, torch.zeros(400, dtype=torch.int64), size=size)
    black = new == 0
    assert torch.equal(new, (~black).float())
    assert torch.equal(black.all(1), black.any(1))  # in every channel alike
    hole = black[:, 0]
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    assert rows.sum(1).max() == min(size, 6)
    assert columns.sum(1).max() == min(size, 7)
    assert (hole.sum((1, 2)) >= 1).all()
    assert hole.any(0).all()  # every pixel is hit by some


def test_cutout_of_everything() -> None:
    x, y = batch()
    assert apply("cutout", x, y, size=40)[0].abs().sum() == 0


# --- mixup --------------------------------------------------------------------------------------------------


def mixed(n: int, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Images and labels that say who they are: image i is i everywhere, and has class i."""
    x = (torch.arange(n) / n).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).double()
    draws = Draws(0, torch.arange(n))
    found: tuple[Tensor, Tensor] = registry.resolve("augmentations", {"mixup": {"alpha": alpha}})(
        x=x, y=torch.arange(n), draws=draws, classes=n
    )
    return found


def test_mixup_blends_images_as_it_blends_labels() -> None:
    n = 200
    x, target = mixed(n)
    assert torch.allclose(target.sum(1), torch.ones(n, dtype=torch.float64))
    assert target.min() >= 0
    assert ((target > 0).sum(1) <= 2).all()
    assert torch.allclose(x[:, 0, 0, 0], target @ (torch.arange(n) / n).double())
    assert torch.equal(x, x[:, :, :1, :1].expand_as(x))


def test_everyone_in_a_mixup_lends_to_one_other() -> None:
    _, target = mixed(150, alpha=1.0)
    others = target.clone().fill_diagonal_(0) > 0
    assert (others.sum(0) == 1).all()
    assert (others.sum(1) == 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixups_share_is_beta(alpha: float) -> None:
    _, target = mixed(2000, alpha)
    assert stats.kstest(target.diagonal().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_an_images_share_is_its_own_whatever_its_partner() -> None:
    n = 30
    x, y = batch(n)
    y = torch.zeros(n, dtype=torch.int64)
    y[3] = 1
    rows = torch.tensor([3, 9, 12, 20])
    whole, part = apply("mixup", x, y)[1], apply("mixup", x[rows], y[rows], rows)[1]
    assert torch.equal(whole[3], part[0])  # only image 3 has class 1


def test_mixup_of_soft_labels_and_of_one_image() -> None:
    x, y = batch()
    hard = apply("mixup", x, y)
    soft = apply("mixup", x, F.one_hot(y, CLASSES).float())
    assert torch.equal(hard[1], soft[1])
    one = apply("mixup", x[:1], y[:1])
    assert torch.allclose(one[0], x[:1])
    assert torch.allclose(one[1], F.one_hot(y[:1], CLASSES).float())
