"""torchvision beside a torch that its compiled operators were not built for."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, warnings
warnings.simplefilter("error")
from stresslens.core.torchvision_compat import _declared, cure, torchvision
assert "torchvision" not in sys.modules
module = torchvision()
declared = list(_declared)
cure()
assert torchvision() is module and list(_declared) == declared and len(declared) <= 1
import torch
half = module.transforms.Resize(4)(torch.ones(3, 8, 8))
assert half.shape == (3, 4, 4) and torch.allclose(half, torch.ones(3, 4, 4))
assert hasattr(torch.ops.torchvision, "nms")
assert module.datasets.MNIST.__name__ == "MNIST" and module.models.resnet18(weights=None) is not None
print("cured" if declared else "not needed")
"""


def test_torchvision_can_be_imported_and_used_in_a_fresh_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("cured", "not needed")
