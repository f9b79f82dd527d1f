"""AutoAugment, TrivialAugment, AugMix: the spaces are the papers', the mixing is written out; a choice
between two augmentations for each batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.augmentations import augmix as augmix_file
from stresslens.plugins.augmentations import auto_augment as auto_file
from stresslens.plugins.augmentations import trivial_augment as trivial_file
from stresslens.plugins.augmentations._operations import applied
from stresslens.plugins.augmentations._policies import POLICIES
from stresslens.plugins.augmentations.augmix import augmix
from stresslens.plugins.augmentations.auto_augment import auto_augment
from stresslens.plugins.augmentations.trivial_augment import trivial_augment

N = 80
CALLED = {
    **{"shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY"},
    **{"rotate": "Rotate", "brightness": "Brightness", "colour": "Color", "contrast": "Contrast"},
    **{"sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize"},
    **{"autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert", "identity": "Identity"},
}
ON_LEVELS = ("posterize", "solarize", "equalize", "invert", "identity")
"""Operations whose result is exact only on eight bits."""


def v2() -> Any:
    assert torchvision()
    from torchvision.transforms import v2 as transforms

    return transforms


def one(x: Tensor, name: str, strength: Any, sign: Tensor, known: Any) -> Tensor:
    """Images after one operation; the strength is one for all, or (n,)."""
    n = len(x)
    which, strengths = torch.zeros(n, 1), torch.as_tensor(strength, dtype=torch.float64).expand(n)[:, None]
    return applied(x, which, strengths, sign[:, None], [name], known)


def images(n: int = N, channels: int = 3) -> Tensor:
    draws = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (n, channels, 40, 36), generator=draws).double() / 255


def torchvisions(transform: Any, image: Tensor, name: str, strength: int, sign: int, levels: int) -> Tensor:
    """What a transform of torchvision does with the operation at this level, on floats."""
    magnitudes, signed = transform._AUGMENTATION_SPACE[CALLED[name]]
    values = magnitudes(levels, *image.shape[1:])
    magnitude = 0.0 if values is None else float(values[strength]) * (sign if signed else 1)
    given = (image * 255).round().to(torch.uint8) if name in ("posterize", "equalize") else image
    found = transform._apply_image_or_video_transform(
        given, CALLED[name], magnitude, interpolation=v2().InterpolationMode.BILINEAR, fill={Tensor: None}
    )
    result: Tensor = found.double() / 255 if found.dtype == torch.uint8 else found
    return result


@pytest.mark.breadth(30)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("strength", [0, 3, 6, 9])
@pytest.mark.parametrize("name", auto_file.NAMES)
def test_an_operation_of_auto_augment_is_torchvisions(name: str, strength: int, sign: int) -> None:
    if name == "identity":
        return
    x = images(3)
    found = one(x, name, strength / 9, torch.full((3,), sign), auto_file.KNOWN)
    for image, new in zip(x, found):
        expected = torchvisions(v2().AutoAugment(), image, name, strength, sign, 10).clamp(0, 1)
        assert torch.allclose(new, expected, atol=2e-5)


@pytest.mark.breadth
@pytest.mark.parametrize("strength", [0, 1, 13, 30])
@pytest.mark.parametrize("name", trivial_file.NAMES)
def test_an_operation_of_trivial_augment_is_torchvisions(name: str, strength: int) -> None:
    x = images(3)
    found = one(x, name, strength / 30, torch.full((3,), -1), trivial_file.WIDE)
    for image, new in zip(x, found):
        expected = torchvisions(v2().TrivialAugmentWide(), image, name, strength, -1, 31).clamp(0, 1)
        assert torch.allclose(new, expected, atol=2e-5)


def test_the_policies_are_the_papers() -> None:
    transform = v2().AutoAugment()
    for name, policy in POLICIES.items():
        published = transform._get_policies(v2().AutoAugmentPolicy(name))
        assert [tuple((CALLED[n], p, m) for n, p, m in pair) for pair in policy] == [
            tuple((n, p, m or 0) for n, p, m in pair) for pair in published
        ]


def test_trivial_augment_is_one_operation_written_out() -> None:
    x = images()
    new, _ = trivial_augment(x, torch.zeros(N), Draws(4, torch.arange(N)))
    draws, names = Draws(4, torch.arange(N)), trivial_file.NAMES
    which, strength, sign = draws.integers(14), draws.integers(31), 2 * draws.integers(2) - 1
    for i in range(N):
        name = names[int(which[i])]
        expected = one(x[i : i + 1], name, int(strength[i]) / 30, sign[i : i + 1], trivial_file.WIDE)
        assert torch.equal(new[i], expected[0])
    assert len(which.unique()) == 14


def test_auto_augment_is_two_operations_written_out() -> None:
    x = images()
    new, _ = auto_augment(x, torch.zeros(N), Draws(4, torch.arange(N)), policy="cifar10")
    draws = Draws(4, torch.arange(N))
    pair = draws.integers(25)
    steps = [(draws.uniform(), 2 * draws.integers(2) - 1) for _ in range(2)]
    for i in range(N):
        expected = x[i : i + 1]
        for (name, likely, level), (drawn, sign) in zip(POLICIES["cifar10"][int(pair[i])], steps):
            if drawn[i] < likely:
                expected = one(expected, name, level / 9, sign[i : i + 1], auto_file.KNOWN)
        assert torch.equal(new[i], expected[0])


def test_colour_is_left_out_for_other_channels() -> None:
    for channels in (1, 2):
        x = images(200, channels)
        for function in (auto_augment, trivial_augment, augmix):
            assert function(x, torch.zeros(200), Draws(0, torch.arange(200)))[0].shape == x.shape


# --- AugMix -------------------------------------------------------------------------------------------------


def test_augmix_is_the_mixture_written_out() -> None:
    x, width = images(), 2
    new, _ = augmix(x, torch.zeros(N), Draws(4, torch.arange(N)), width=width, depth=2, severity=5)
    draws = Draws(4, torch.arange(N))
    shares = -(-draws.uniform(width).double()).log1p()  # alpha 1: the quantiles of Exp(1)
    shares, share = shares / shares.sum(1, keepdim=True), draws.uniform()  # Beta(1, 1) is uniform
    chains = []
    for _ in range(width):
        chain = x
        for _ in range(2):
            which = draws.integers(len(augmix_file.NAMES))
            strength = draws.uniform(low=0.1, high=5).double() / 10
            sign = 2 * draws.integers(2) - 1
            steps = (each[:, None] for each in (which, strength, sign))
            chain = applied(chain, *steps, augmix_file.NAMES, augmix_file.KNOWN)
        chains.append(chain)
    mixed = sum((shares[:, k, None, None, None] * chain for k, chain in enumerate(chains)), torch.zeros(()))
    share = share[:, None, None, None]
    assert torch.allclose(new, (1 - share) * x + share * mixed, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_are_dirichlet_and_beta(alpha: float) -> None:
    gammas = augmix_file._gammas(Draws(0, torch.arange(3000)), alpha, 3)
    share = (gammas[:, 0] / gammas.sum(1)).numpy()
    assert stats.kstest(share, stats.beta(alpha, 2 * alpha).cdf).pvalue > 1e-3


def test_a_chain_has_one_to_three_operations() -> None:
    which, strength, signs = augmix_file._chain(Draws(0, torch.arange(3000)), 3.0, None)
    counts = (which >= 0).sum(1).bincount()
    assert counts[0] == 0
    assert len(counts) == 4
    assert (counts[1:] - 1000).abs().max() < 110  # four standard errors
    assert bool((which.diff(dim=1)[which[:, 1:] == -1] <= 0).all())  # none behind the last one
    assert strength.min() >= 0.01
    assert strength.max() < 0.3
    assert signs.unique().tolist() == [-1, 1]


def test_a_severity_of_almost_nothing_is_almost_the_image() -> None:
    x = torch.full((200, 1, 8, 8), 0.5) + 0.25 * torch.eye(8)
    near, far = (
        augmix(x, torch.zeros(200), Draws(0, torch.arange(200)), severity=severity)[0]
        for severity in (0.1, 10.0)
    )
    assert (near - x).abs().mean() < (far - x).abs().mean()


# --- a choice for each batch --------------------------------------------------------------------------------


def chosen_for(batches: int, **options: Any) -> list[str]:
    """What was taken for each of several batches of four: a flip mirrors all, or a cutout covers all."""
    bound = registry.resolve(
        "augmentations",
        {
            "random_choice": {
                "first": {"flip": {"chance": 1.0}},
                "second": {"cutout": {"size": 40}},
                **options,
            }
        },
    )
    x = torch.arange(1, 7).float().reshape(1, 1, 2, 3).expand(4, 1, 2, 3) / 6
    found = []
    for k in range(batches):
        new, labels = bound(x=x, y=torch.arange(4), draws=Draws(0, torch.arange(4) + 4 * k), classes=4)
        assert labels.tolist() == [0, 1, 2, 3]
        found.append("second" if bool((new == 0).all()) else "first")
        assert found[-1] == "second" or torch.equal(new, x.flip(-1))
    return found


def test_one_of_two_for_each_batch() -> None:
    assert set(chosen_for(20, share=0.0)) == {"first"}
    assert set(chosen_for(20, share=1.0)) == {"second"}
    assert abs(chosen_for(600, share=0.25).count("second") - 150) < 43  # four standard errors


def test_mixup_or_cutmix_by_default() -> None:
    bound = registry.resolve("augmentations", "random_choice")
    x = torch.arange(20).float().reshape(20, 1, 1, 1).expand(20, 1, 6, 6) / 20
    kinds = set()
    for seed in range(30):
        new, labels = bound(x=x, y=torch.arange(20), draws=Draws(seed, torch.arange(20)), classes=20)
        assert torch.allclose(labels.sum(1), torch.ones(20))
        assert torch.allclose(new.mean((1, 2, 3)), labels @ (torch.arange(20) / 20), atol=1e-6)
        kinds.add(bool((new.flatten(2).amax(2) == new.flatten(2).amin(2)).all()))
    assert kinds == {True, False}  # mixup keeps an image of one value, CutMix does not
