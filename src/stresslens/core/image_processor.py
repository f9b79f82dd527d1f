"""The image processor of a model of Hugging Face's transformers: how it prepares images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stresslens.core.layers import Interpolation, Normalize
from stresslens.core.pretrained import Preprocessing

BICUBIC = 3
"""The number of bicubic resampling in PIL."""


def processor_preprocessing(found: Mapping[str, Any], config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that a processor's settings (preprocessor_config.json) and its model's
    configuration (config.json) describe, for images in [0, 1]."""
    channels = int(config.get("num_channels") or 3)
    normalizes = found.get("do_normalize", True)
    mean, std = (found.get(key) if normalizes else None for key in ("image_mean", "image_std"))
    plain = Normalize.by_moments(mean or [0.0] * channels, std or [1.0] * channels)
    white = 255 * float(found.get("rescale_factor") or 1 / 255) if found.get("do_rescale", True) else 255.0
    size, crop = _sizes(found, config)
    interpolation: Interpolation = "bicubic" if found.get("resample") == BICUBIC else "bilinear"
    normalize = Normalize(plain.gain * white, plain.shift)
    return Preprocessing((channels, *size), normalize, interpolation, crop, crop is not None)


def _sizes(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[tuple[int, int], float | None]:
    """The size that the net sees, and the share of the shorter side that the centre crop keeps."""
    side = config.get("image_size")
    side = side if isinstance(side, int) else 224

    def both(value: Any) -> tuple[int, int]:
        if isinstance(value, Mapping):
            return (int(value.get("height") or side), int(value.get("width") or side))
        return (int(value), int(value)) if value else (side, side)

    wanted = found.get("size")
    shortest = wanted.get("shortest_edge") if isinstance(wanted, Mapping) else None
    if found.get("do_center_crop") and found.get("crop_size"):
        seen = both(found["crop_size"])
        return seen, min(1.0, min(seen) / (int(shortest) if shortest else min(both(wanted))))
    if shortest:  # ConvNeXT resizes to shortest / crop_pct and takes the middle
        share = found.get("crop_pct")
        return (int(shortest), int(shortest)), float(share) if share and int(shortest) < 384 else None
    return both(wanted), None
