"""An attack from plain settings, steered the same way on every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stresslens.config.threat_model import resolve_threat_model
from stresslens.core.data import Split
from stresslens.robustness import attack_run
from stresslens.robustness.autotune import AttackCompute
from stresslens.robustness.measure import measure
from stresslens.robustness.result import AttackResult

PLAIN = AttackCompute("float32", "contiguous", 1, 64, 1, 1e-5)


def plainly(model: nn.Module, x: Tensor, *, passes: int) -> AttackCompute:
    return replace(PLAIN, passes=passes)


def attacked(model: nn.Module, x: Tensor, y: Tensor, home: Path | None = None, **asked: Any) -> AttackResult:
    threat = resolve_threat_model(attack_run.robustness_config({"images": "all", **asked}), base=Path.cwd())
    return measure(model, Split(x, y, 1.0), threat, home=home)[0]
