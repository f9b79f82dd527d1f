from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stresslens.plugins.corruptions._strength import Severity, strength


def jpeg(x: Tensor, severity: Severity) -> Tensor:
    """JPEG compression of low quality (Hendrycks & Dietterich 2019). x (N, C, H, W) in [0, 1].

    Three channels are a colour image with halved colour resolution. Any other number of channels is
    compressed as separate grey images.
    """
    import simplejpeg

    quality = round(strength(x, severity, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)))
    kind, halved = ("RGB", "420") if x.shape[1] == 3 else ("GRAY", "Gray")
    pixels = (x * 255).round().to(torch.uint8).cpu()
    images = pixels.permute(0, 2, 3, 1) if kind == "RGB" else pixels.flatten(0, 1)[..., None]
    files = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, kind, halved) for image in images.numpy()
    ]
    decoded = torch.from_numpy(np.stack([simplejpeg.decode_jpeg(file, kind) for file in files]))
    decoded = decoded.permute(0, 3, 1, 2) if kind == "RGB" else decoded.reshape(x.shape)
    return decoded.to(x.device, x.dtype).div_(255).contiguous()
