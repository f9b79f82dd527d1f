"""Fingerprints: short SHA-256 digests of plain values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint_of(values: Any) -> str:
    """16 hexadecimal digits of plain values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
