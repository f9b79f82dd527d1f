"""The operations of RandAugment and its relatives, and how strong each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from stresslens.plugins.augmentations import _colour, _geometry


class Operation(NamedTuple):
    """`change` maps images (N, C, H, W) and an amount (N, 1, 1, 1) to images; `amount` maps the
    strength in [0, 1], the sign ±1 (both (N, 1, 1, 1)) and the height and width to that amount."""

    change: Callable[[Tensor, Tensor], Tensor]
    amount: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


def known_operations(
    *,
    shear: float = 0.3,
    shift: Callable[[Tensor, int], Tensor] = lambda strength, length: strength * 150 / 331 * length,
    rotation: float = 30,
    factor: float = 0.9,
    bits: tuple[int, int] = (8, 4),
) -> dict[str, Operation]:
    """The operations by name, with what each does at full strength; the defaults are RandAugment's.

    A shear by `shear`, a shift by `shift(strength, side)` in whole pixels, a rotation by `rotation`
    degrees, a factor of 1 ± `factor`, and from `bits[0]` (weakest) to `bits[1]` bits. Solarize
    inverts values of at least 1 - strength.
    """

    def signed(limit: float) -> Callable[[Tensor, Tensor, tuple[int, int]], Tensor]:
        return lambda strength, sign, size: (limit * strength).to(sign.dtype) * sign

    def shifted(side: int) -> Callable[[Tensor, Tensor, tuple[int, int]], Tensor]:
        return lambda strength, sign, size: sign * shift(strength, size[side]).floor().to(sign.dtype)

    def around_one(strength: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return 1 + (factor * strength).to(sign.dtype) * sign

    def kept_bits(strength: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return (bits[0] - ((bits[0] - bits[1]) * strength).round()).to(sign.dtype)

    def threshold(strength: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return (1 - strength).to(sign.dtype)

    return {
        "identity": Operation(_colour.identity, _nothing),
        "shear_x": Operation(_geometry.shear_x, signed(shear)),
        "shear_y": Operation(_geometry.shear_y, signed(shear)),
        "translate_x": Operation(_geometry.translate_x, shifted(1)),
        "translate_y": Operation(_geometry.translate_y, shifted(0)),
        "rotate": Operation(_geometry.rotate, lambda strength, sign, size: rotation * strength * sign),
        "brightness": Operation(_colour.brightness, around_one),
        "contrast": Operation(_colour.contrast, around_one),
        "sharpness": Operation(_colour.sharpness, around_one),
        "posterize": Operation(_colour.posterize, kept_bits),
        "solarize": Operation(_colour.solarize, threshold),
        "autocontrast": Operation(_colour.autocontrast, _nothing),
        "equalize": Operation(_colour.equalize, _nothing),
        "colour": Operation(_colour.saturation, around_one),
        "invert": Operation(_colour.invert, _nothing),
    }


def for_channels(names: Sequence[str], channels: int) -> list[str]:
    """The operations that images of so many channels can have: colour needs three."""
    return [name for name in names if channels == 3 or name != "colour"]


def applied(
    x: Tensor,
    which: Tensor,
    strength: Tensor,
    signs: Tensor,
    names: Sequence[str],
    known: Mapping[str, Operation],
) -> Tensor:
    """Images after some operations each, one after the other. `which` (N, steps) counts in `names`;
    another number is no operation. `strength` and `signs`, from which an operation makes its amount,
    are (N, steps) too."""
    size, strengths, signs = (x.shape[2], x.shape[3]), strength.double(), signs.to(x.dtype)
    x = x.clone()
    for step in range(which.shape[1]):
        for k, name in enumerate(names):
            at = (which[:, step] == k).nonzero()[:, 0]
            if len(at):
                strong, way = (values[at, step, None, None, None] for values in (strengths, signs))
                x[at] = known[name].change(x[at], known[name].amount(strong, way, size)).clamp_(0, 1)
    return x


def _nothing(strength: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
    return sign
