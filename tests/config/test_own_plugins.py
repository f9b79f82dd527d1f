"""Plug-ins of one's own: a function in a file or a module, what is refused, and whom to trust."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_files import write
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.published_weights import default_preprocessing, initial_weights
from stresslens.core.errors import ConfigError, Problems


def test_a_function_of_ones_own_file(tmp_path: Path) -> None:
    text = """
    import torch.nn.functional as F

    def focal(logits, y, *, gamma: float = 2.0):
        "A loss."
        p = F.cross_entropy(logits, y, reduction="none")
        return ((1 - (-p).exp()) ** gamma * p).mean()
    """
    (tmp_path / "plugins").mkdir()
    write(tmp_path / "plugins", "mine.py", text)
    loss = registry.resolve("losses", {"plugins/mine.py:focal": {"gamma": 0}}, base=tmp_path)
    logits, y = torch.randn(6, 3), torch.arange(6) % 3
    assert torch.allclose(loss(logits=logits, y=y), nn.functional.cross_entropy(logits, y))
    assert registry.plugin("losses", f"{tmp_path}/plugins/mine.py:focal").__name__ == "focal"


def test_an_own_plugin_has_options_like_any_other(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "def mine(logits, y, *, gamma: float, name: str = 'a'): return gamma")
    with pytest.raises(Problems, match="needs the option 'gamma'"):
        registry.resolve("losses", "mine.py:mine", base=tmp_path)
    with pytest.raises(Problems, match=r"has no option 'gama'; did you mean 'gamma'\?"):
        registry.resolve("losses", {"mine.py:mine": {"gama": 1.0, "gamma": 1.0}}, base=tmp_path)
    assert registry.resolve("losses", {"mine.py:mine": {"gamma": 3.0}}, base=tmp_path)() == 3


def test_an_own_plugin_may_take_another(tmp_path: Path) -> None:
    text = """
    from stresslens.core.types import Loss

    def twice(net, inputs, y, *, loss: Loss = "mse"):
        return 2 * loss(logits=net(inputs), y=y)
    """
    write(tmp_path, "mine.py", text)
    bound = registry.resolve("objectives", "mine.py:twice", base=tmp_path)
    x, y = torch.randn(4, 3), torch.arange(4) % 3
    net = nn.Identity()
    found: Tensor = bound(y=y, net=net, inputs=x)
    assert torch.allclose(found, 2 * registry.resolve("losses", "mse")(logits=x, y=y))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.py:mine", r"'none\.py:mine': there is no file .*none\.py"),
        ("mine.py:mines", r"mine\.py defines no function 'mines'; did you mean 'mine'\?"),
        ("mine.py:value", r"mine\.py defines no function 'value'; "),
        ("mine.py:sqrt", r"mine\.py defines no function 'sqrt'; "),
        ("mine.py:", r"mine\.py defines no function ''; "),
        ("torch.optim:NAdamm", r"torch\.optim defines no function 'NAdamm'; did you mean 'NAdam'\?"),
        (
            "alien.py:alien",
            r"'alien\.py:alien' asks for pixels, size; a model may ask for: shape, classes, names, train",
        ),
        ("raises.py:mine", r"raises\.py cannot be run: ZeroDivisionError: division by zero"),
        ("syntax.py:mine", r"syntax\.py cannot be run: SyntaxError: "),
        ("imports.py:mine", r"imports\.py cannot be run: ModuleNotFoundError: .*nowhere_to_be_found"),
        ("nowhere_to_be_found:mine", r"cannot import nowhere_to_be_found"),
        (
            "stresslens.config.registry:nmes",
            r"stresslens\.config\.registry defines no function 'nmes'; did you mean 'names'\?",
        ),
        (":mine", "':mine'"),
        (".mine:mine", "'.mine:mine'"),
    ],
)
def test_what_is_wrong_with_an_own_plugin_is_said(tmp_path: Path, name: str, says: str) -> None:
    write(tmp_path, "mine.py", "from math import sqrt\nvalue = 3\ndef mine(shape, classes): return None")
    write(tmp_path, "alien.py", "def alien(pixels, size, *, depth: int = 3): return None")
    write(tmp_path, "raises.py", "def mine(shape): return None\n1 / 0")
    write(tmp_path, "syntax.py", "def mine(shape: return None")
    write(tmp_path, "imports.py", "import nowhere_to_be_found\ndef mine(shape): return None")
    with pytest.raises(ConfigError, match=says):
        registry.plugin("models", name, base=tmp_path)


BESIDE = {
    "at the top": "from beside import width\ndef mine(shape, classes): return width",
    "with a dot": "from .beside import width\ndef mine(shape, classes): return width",
    "the module with a dot": "from . import beside\ndef mine(shape, classes): return beside.width",
    "in the function": "def mine(shape, classes):\n    import beside\n    return beside.width",
    "in the function, with a dot": "def mine(shape):\n    from .beside import width\n    return width",
    "a package": "from folder.beside import width\ndef mine(shape, classes): return width",
}


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE)
def test_a_plugin_that_imports_a_file_beside_it_is_told_what_to_do(tmp_path: Path, text: str) -> None:
    write(tmp_path, "mine.py", text)
    write(tmp_path, "beside.py", "width = 3")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", "beside.py", "width = 3")
    with pytest.raises(ConfigError) as told:
        registry.plugin("models", "mine.py:mine", base=tmp_path)
    name = "folder" if "folder" in text else "beside.py"
    assert str(told.value).startswith(f"{tmp_path / 'mine.py'} cannot be run: ")
    assert f"is copied into the run and opened again without {name} beside it. Put all" in str(told.value)
    assert "or install a package and name the plug-in package.module:function" in str(told.value)


def test_a_file_beside_a_copied_plugin_is_told_when_the_run_is_opened(tmp_path: Path) -> None:
    write(tmp_path, "mine-01234567.py", BESIDE["at the top"])
    with pytest.raises(
        ConfigError, match=r"No module named 'beside'\. A plug-in is one file, .* into this file"
    ):
        registry.plugin("models", "mine-01234567.py:mine", base=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "import math\ndef mine(shape, classes): return math.floor(3.5)",
        "try:\n    from beside import width\nexcept ImportError:\n    width = 3\n"
        "def mine(shape, classes): return width",
    ],
    ids=["a module of Python", "with another way"],
)
def test_what_a_plugin_may_import(tmp_path: Path, text: str) -> None:
    write(tmp_path, "mine.py", text)
    write(tmp_path, "beside.py", "width = 5")
    write(tmp_path, "math.py", "floor = None")
    assert registry.resolve("models", "mine.py:mine", base=tmp_path)(shape=(1, 2, 2), classes=2) == 3


FOR_TYPE_CHECKERS = """
from __future__ import annotations
import typing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beside import Net
if typing.TYPE_CHECKING:
    from .beside import Shape
else:
    from math import floor

def mine(shape: Shape, classes: int, *, depth: int = 3) -> Net:
    return floor(depth + 0.5)
"""


def test_a_plugin_may_import_a_file_beside_it_for_type_checkers(tmp_path: Path) -> None:
    write(tmp_path, "beside.py", "Net = Shape = None")
    write(tmp_path, "mine.py", FOR_TYPE_CHECKERS)
    assert registry.resolve("models", {"mine.py:mine": {"depth": 4}}, base=tmp_path)() == 4
    with pytest.raises(Problems, match="valid integer"):
        registry.resolve("models", {"mine.py:mine": {"depth": "deep"}}, base=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        FOR_TYPE_CHECKERS + "    from beside import Net",
        FOR_TYPE_CHECKERS.replace("from math import floor", "from beside import floor"),
        FOR_TYPE_CHECKERS.replace("depth: int", "depth: Net"),
    ],
    ids=["in the function too", "in else", "the type of an option"],
)
def test_what_only_type_checkers_import_is_not_there_otherwise(tmp_path: Path, text: str) -> None:
    write(tmp_path, "beside.py", "Net = Shape = None\nfloor = round")
    write(tmp_path, "mine.py", text)
    with pytest.raises(ConfigError, match=r"beside\.py beside it|annotations cannot be read .*'Net'"):
        registry.plugin("models", "mine.py:mine", base=tmp_path)


def test_a_module_that_is_a_file_here(tmp_path: Path) -> None:
    write(tmp_path, "only_here.py", "def mine(shape, classes): return 3")
    with pytest.raises(ConfigError, match=r"did you mean only_here\.py:mine\?"):
        registry.plugin("models", "only_here:mine", base=tmp_path)


def test_a_module_that_fails_when_it_is_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path, "stresslens_test_broken.py", "def mine(shape): return None\nraise ValueError('no licence')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"stresslens_test_broken.*no licence"):
        registry.plugin("models", "stresslens_test_broken:mine")


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "stresslens_test_module.py", "def mine(shape, classes): return shape[0] * classes")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("models", "stresslens_test_module:mine")(shape=(3, 4, 4), classes=5) == 15


@pytest.mark.parametrize(
    "text",
    [
        "def mine(shape, classes, *, depth=3): return depth",
        "def mine(shape, classes, *, depth: 'Nonsense' = 3): return depth",
        "def mine(shape, classes, /, *, depth: int = 3): return depth",
        "def mine(*shape, depth: int = 3): return depth",
        "def mine(shape, classes, *, depth: int = 3, **more): return depth",
    ],
    ids=["no annotation", "unknown annotation", "positional only", "star", "double star"],
)
def test_an_unusual_signature_works_or_is_refused_with_a_message(tmp_path: Path, text: str) -> None:
    write(tmp_path, "mine.py", text)
    try:
        found = registry.resolve("models", {"mine.py:mine": {"depth": 4}}, base=tmp_path)(
            shape=(1, 2, 2), classes=3
        )
    except ConfigError as error:
        found = str(error)
    assert found == 4 or "mine" in found


def test_somebody_elses_code_is_not_run_untrusted(tmp_path: Path) -> None:
    text = f"open({str(tmp_path / 'made')!r}, 'w').close()\ndef mine(optimizer): return None"
    write(tmp_path, "mine.py", text)
    for value in ("mine.py:mine", {"warmup": {"then": "mine.py:mine"}}):
        with pytest.raises(ConfigError, match=r"mine\.py:mine' is code from outside stresslens.*--trust"):
            registry.resolve("schedules", value, base=tmp_path, trust=False)
    assert not (tmp_path / "made").exists()
    registry.resolve("schedules", {"warmup": {"then": "mine.py:mine"}}, base=tmp_path)
    assert (tmp_path / "made").exists()


def test_a_built_in_plugin_needs_no_trust() -> None:
    assert registry.resolve("models", "linear", trust=False).function is registry.plugin("models", "linear")


@pytest.mark.parametrize("name", ["default_preprocessing", "usual"])
def test_a_model_of_ones_own_says_how_images_are_prepared(tmp_path: Path, name: str) -> None:
    text = f"""
    def mine(shape, classes, *, depth: int = 3): return depth

    def published(*, weights: str | None = None, size: int = 4): return (weights, size)

    def {name}(*, size: int = 5): return size
    """
    write(tmp_path, "mine.py", text)
    value = {"mine.py:mine": {"size": 6, "weights": "mine", "depth": 2}}
    assert registry.resolve("models", value, base=tmp_path)() == 2
    known = default_preprocessing(value, base=tmp_path)
    publish = initial_weights(value, base=tmp_path)
    assert known is not None
    assert known() == 6
    assert isinstance(publish, registry.Bound)
    assert publish() == ("mine", 6)
