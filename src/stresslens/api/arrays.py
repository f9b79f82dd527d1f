"""Images and labels as the public functions take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

Images: TypeAlias = Tensor | np.ndarray | Sequence[Any]
"""Images as `core.arrays.image_tensor` takes them."""
Labels: TypeAlias = Tensor | np.ndarray | Sequence[int] | Sequence[str]
"""Labels as `core.labels.label_numbers` takes them."""
