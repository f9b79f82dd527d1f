"""A short digest of plain values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint_of(values: Any) -> str:
    """16 hexadecimal digits of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
