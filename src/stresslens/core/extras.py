"""Packages that stresslens needs for a part of its work only, and the command that installs them.

A package of an extra is imported where it is used, inside `extra(…)`. A plug-in that needs one says
so in its file, `EXTRA = "timm"`, and is then refused before anything is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.text import enumeration

EXTRAS: dict[str, tuple[str, ...]] = {
    "classical": ("cv2",),
    "clip": ("open_clip",),
    "figures": ("vl_convert",),
    "huggingface": ("datasets",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "serve": ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client", "packaging"),
    "sweep": ("optuna",),
    "tensorboard": ("tensorboard",),
    "timm": ("timm",),
    "transformers": ("transformers",),
    "wandb": ("wandb",),
}
"""Each extra of the package, and the modules that it brings."""


def install_command(name: str) -> str:
    """The command that installs an extra, for the installed package and for a clone."""
    return f"pip install 'stresslens[{name}]' (in a clone: pip install -e '.[{name}]')"


@contextmanager
def extra(name: str, what: str, *, raises: type[StresslensError] = ConfigError) -> Iterator[None]:
    """Imports inside it are of the packages of an extra, which `what` needs.

    Raises `raises`, with the command that installs them, where they cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise raises(f"{what} needs {_why(name, error)}; {install_command(name)}") from None


def require(name: str, what: str, *, raises: type[StresslensError] = ConfigError) -> None:
    """As `extra`, but only looks whether the packages are there, without importing them."""
    if missing := missing_modules(name):
        raise raises(f"{what} needs {_listed(missing)}; {install_command(name)}")


def missing_modules(name: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[name] if not _is_there(module)]


def needed_extra(function: Callable[..., object]) -> str | None:
    """The extra that the file of a plug-in says it needs, `EXTRA`."""
    needed: str | None = vars(sys.modules[function.__module__]).get("EXTRA")
    return needed if needed in EXTRAS else None


def require_for(function: Callable[..., object], name: str) -> None:
    """Raises ConfigError where the packages that a plug-in needs are not installed."""
    if (needed := needed_extra(function)) is not None:
        require(needed, name)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # hidden, or half imported
        return False


def _why(name: str, error: ImportError) -> str:
    """What is missing, in words: a package, or what a package that is there does not find."""
    missing = missing_modules(name)
    if missing:
        return _listed(missing)
    return f"{_listed(EXTRAS[name])}, which cannot be imported ({first_line(error)})"


def _listed(modules: list[str] | tuple[str, ...]) -> str:
    words = [PACKAGES.get(module, module) for module in modules]
    return enumeration(words, len(words))


PACKAGES = {
    "cv2": "OpenCV",
    "optuna": "Optuna",
    "ray": "Ray",
    "vl_convert": "vl-convert",
    "wandb": "Weights & Biases",
}
"""What people call a module, where its name does not say it."""
