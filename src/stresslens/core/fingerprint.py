"""Fingerprints: short SHA-256 digests of plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint_of(values: Any) -> str:
    """16 hexadecimal digits of plain values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def image_keys(images: Tensor) -> Tensor:
    """(n,) int64 keys of images (n, C, H, W), on the CPU: equal for equal pixels, and in practice
    different for others (64 bits of BLAKE2b)."""
    import numpy as np
    import torch

    keys = [
        hashlib.blake2b(np.ascontiguousarray(image.cpu().numpy()).data, digest_size=8).digest()
        for image in images.detach()
    ]
    return torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.int64).copy())


def repeated(pieces: Iterable[Tensor], labels: Tensor) -> Tensor:
    """(n,) which images, given in pieces (m, C, H, W), have the pixels and the label of an earlier
    one; on the CPU."""
    import numpy as np
    import torch

    keys = torch.stack([torch.cat([image_keys(piece) for piece in pieces]), labels.cpu()], 1).numpy()
    later = np.ones(len(keys), dtype=bool)
    later[np.unique(keys, axis=0, return_index=True)[1]] = False
    return torch.from_numpy(later)
