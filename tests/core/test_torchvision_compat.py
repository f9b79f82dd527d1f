"""torchvision beside a torch that its compiled operators were not built for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

USED = """
import sys, torch
half = torchvision.transforms.Resize(4)(torch.ones(3, 8, 8))
assert half.shape == (3, 4, 4) and torch.allclose(half, torch.ones(3, 4, 4))
assert hasattr(torch.ops.torchvision, "nms")
assert torchvision.datasets.MNIST.__name__ == "MNIST"
assert torchvision.models.resnet18(weights=None) is not None
from stresslens.core.torchvision_compat import _declared, cure, torchvision as module
cure()
assert module() is torchvision and len(_declared) <= 1
"""
IMPORTS = {
    "after stresslens": "import stresslens, torchvision",
    "from a part of it": "import stresslens\nfrom torchvision.transforms import v2\nimport torchvision",
    "after torch and a look for it": "import torch, stresslens, importlib.util\n"
    "assert importlib.util.find_spec('torchvision').origin\nimport torchvision",
    "by timm": "import stresslens, timm\nimport torchvision",
    "by open_clip": "import stresslens, open_clip\nimport torchvision",
}
FAILED_BEFORE = """
try:
    import torchvision
except RuntimeError:
    pass
import stresslens
import torchvision
"""


def outcome(script: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
    )


@pytest.mark.slow  # a process each
@pytest.mark.parametrize("name", IMPORTS)
def test_torchvision_can_be_imported_and_used(tmp_path: Path, name: str) -> None:
    warnings = [] if name.startswith("by") else ["-W", "error"]
    done = outcome(IMPORTS[name] + USED, tmp_path, *warnings)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_import_that_failed_before_stresslens_was_there_works_afterwards(tmp_path: Path) -> None:
    done = outcome(FAILED_BEFORE + USED, tmp_path)
    assert done.returncode == 0, done.stderr


def test_importing_stresslens_imports_neither_torch_nor_torchvision(tmp_path: Path) -> None:
    script = "import sys, stresslens; assert not {'torch', 'torchvision'} & set(sys.modules)"
    assert outcome(script, tmp_path).returncode == 0


PLUG_IN = """
import torchvision
from torch import Tensor, nn
from torchvision import models, transforms

def jitter(x: Tensor, y: Tensor, draws):
    return transforms.ColorJitter(0.1)(x), y

def small_net(shape, classes: int):
    net = torchvision.models.resnet18(num_classes=classes)
    net.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    return net
"""
RESOLVE = """
from pathlib import Path
from stresslens.config import registry
import torch
base = Path.cwd()
jitter = registry.resolve("augmentations", "{where}:jitter", base=base)
x, y = jitter(x=torch.rand(2, 3, 8, 8), y=torch.tensor([0, 1]), draws=None)
assert x.shape == (2, 3, 8, 8)
net = registry.resolve("models", "{where}:small_net", base=base)(shape=(3, 8, 8), classes=2)
assert net(x).shape == (2, 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", [pytest.param("plug.py", marks=pytest.mark.slow), "mine.plug"])
def test_a_plug_in_of_the_user_imports_it(tmp_path: Path, where: str) -> None:
    (tmp_path / "mine").mkdir()
    for file in (tmp_path / "plug.py", tmp_path / "mine" / "plug.py"):
        file.write_text(PLUG_IN, encoding="utf-8")
    done = outcome(RESOLVE.replace("{where}", where), tmp_path)
    assert done.returncode == 0, done.stderr
