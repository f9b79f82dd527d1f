"""Without the packages of an extra, everything else works, and what needs one names its command."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draw_architecture import ROOT
from each_file import each_file
from test_portability import names_of_modules

import stresslens as sl
from stresslens.config import registry, study_file
from stresslens.core.errors import ConfigError, DataError, Notice, Problems
from stresslens.core.extras import EXTRAS, extra, install_command, missing_modules, require
from stresslens.study import pipeline

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_EXTRAS = [module for modules in EXTRAS.values() for module in modules]
ALSO_HIDDEN = ("huggingface_hub", "captum", "matplotlib", "pandas", "tqdm", "grpc", "sqlalchemy")
"""Packages that only extras bring, or that the tests alone need."""

HIDE = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {(*OF_EXTRAS, *ALSO_HIDDEN)!r}
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hides the modules of extras."""

    def hide(*names: str) -> None:
        for name in names:
            for module in EXTRAS[name]:
                monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)

    return hide


def test_the_table_of_extras_is_that_of_the_project() -> None:
    declared = set(PROJECT["optional-dependencies"])
    assert declared == {*EXTRAS, "all", "docs", "test"}
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert everything == f"stresslens[{','.join(sorted(EXTRAS))}]"
    assert not [package for package in PROJECT["dependencies"] if package.partition(">")[0] in OF_EXTRAS]


def test_no_dependency_has_an_upper_limit() -> None:
    """A newer torch is told by doctor as untested, and not refused."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert not [package for group in groups for package in group if "<" in package or "==" in package]


@each_file
def test_an_extra_is_imported_only_inside_a_function(file: Path) -> None:
    """The package `serve`, which an extra brings to life, is imported so as a whole."""
    own = EXTRAS["serve"] if file.parent.name == "serve" else ()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.col_offset == 0:
            modules = (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            assert not {module.partition(".")[0] for module in modules} & {*OF_EXTRAS} - {*own}, file


def test_the_command_works_from_a_clone_and_from_a_wheel() -> None:
    for name in EXTRAS:
        said = install_command(name)
        assert f"pip install 'stresslens[{name}]'" in said
        assert f"pip install -e '.[{name}]'" in said


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_extra_is_told_with_its_command(name: str, without: Callable[..., None]) -> None:
    if name in ("huggingface", "transformers") and missing_modules(name):
        pytest.skip("it is not installed here")
    assert not missing_modules(name)
    require(name, "it")
    without(name)
    assert missing_modules(name) == list(EXTRAS[name])
    with pytest.raises(ConfigError, match=rf"it needs .*; pip install 'stresslens\[{name}\]'"):
        require(name, "it")
    told = pytest.raises(DataError, match=rf"it needs .*; pip install 'stresslens\[{name}\]'")
    with told, extra(name, "it", raises=DataError):
        __import__(EXTRAS[name][0])


def test_a_package_that_is_there_but_broken_is_told_as_such() -> None:
    told = pytest.raises(ConfigError, match=r"needs OpenCV, which cannot be imported \(libGL\.so\.1: no")
    with told, extra("classical", "it"):
        raise ImportError("libGL.so.1: no such file")


PLUGINS: list[tuple[str, str, Any]] = [
    ("classical", "estimators", "sift_bovw_svm"),
    ("classical", "estimators", "hog_svm"),
    ("timm", "models", {"timm": {"name": "resnet18"}}),
    ("clip", "models", "openclip"),
]


@pytest.mark.parametrize(("name", "folder", "value"), PLUGINS, ids=lambda value: str(value)[:20])
def test_a_plug_in_that_needs_it_is_refused_before_anything_is_trained(
    name: str, folder: str, value: Any, without: Callable[..., None], tmp_path: Path
) -> None:
    without(name)
    with pytest.raises(Problems, match=rf"pip install 'stresslens\[{name}\]'"):
        registry.resolve(folder, value)
    file = tmp_path / "s.yaml"
    key = folder.removesuffix("s")
    file.write_text(
        f"data: digits\nruns:\n  a: {{model: linear}}\n  b: {{{key}: {value}}}\n".replace("'", "")
    )
    with pytest.raises(ConfigError, match=rf"s\.yaml:4: .*pip install 'stresslens\[{name}\]'"):
        sl.run(file, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_plug_in_that_needs_it_is_listed_all_the_same(without: Callable[..., None]) -> None:
    from stresslens.cli.terminal import plugin_help

    assert "pip install" not in plugin_help("models", "timm")["help"]
    without(*EXTRAS)
    for folder in registry.VOCABULARY:
        for name in registry.names(folder):
            plugin_help(folder, name)
    assert plugin_help("models", "timm")["help"].endswith(f"Not installed: {install_command('timm')}.")


SWEEP = (
    "data: digits\nmodel: linear\nsweep: {{method: {method}, trials: 2, space: {{train.lr: [0.1, 0.01]}}}}\n"
)


@pytest.mark.slow
def test_only_tpe_needs_optuna(without: Callable[..., None], tmp_path: Path) -> None:
    without("sweep")
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP.format(method="tpe"))
    with pytest.raises(
        ConfigError, match=r"sweep\.method: tpe needs Optuna; pip install 'stresslens\[sweep\]'"
    ):
        study_file.read_study(file)
    file.write_text(SWEEP.format(method="random") + "train: {epochs: 1}\n")
    assert (pipeline.run(study_file.read_study(file), out=tmp_path) / "report.html").is_file()


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_run_without_its_tracker_goes_on_and_says_what_to_install(
    name: str, without: Callable[..., None], tmp_path: Path
) -> None:
    without(name)
    with pytest.warns(Notice, match=rf"{name} is left out .*pip install 'stresslens\[{name}\]'"):
        run = sl.train("linear", "digits", epochs=1, track=[name], out=tmp_path)
    assert run.scores()["accuracy"].n == 360


def test_a_deep_picture_without_opencv_is_told_with_the_command(
    without: Callable[..., None], tmp_path: Path
) -> None:
    from PIL import Image

    from stresslens.core.bit_depth import scaled_colours

    picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    without("classical")
    with pytest.raises(ConfigError, match=r"16 bits for each colour needs OpenCV; pip install"):
        scaled_colours(picture, b"", 4095)


VERBS = [
    ["--version"],
    ["doctor"],
    *([["list"]] + [["list", folder] for folder in ("models", "estimators", "trackers")]),
    ["data", "check", "digits"],
    ["data", "stats", "digits"],
    ["run", "s.yaml"],
    ["train", "digits", "linear", "train.epochs=1"],
    ["evaluate", "runs/s/a/seed-0"],
    ["compare", "runs/s/a/seed-0", "runs/s/b/seed-0"],
    ["attack", "runs/s/a/seed-0", "--radii", "0.1", "--protocol", "[fgsm]", "--images", "8", "--no-audit"],
    ["audit", "table.csv"],
    ["explain", "runs/s/a/seed-0", "--explainer", "saliency", "--images", "2"],
    ["predict", "runs/s/a/seed-0", "picture.png"],
    ["export", "runs/s/a/seed-0", "--to", "safetensors"],
    ["export", "runs/s/a/seed-0", "--to", "torch"],
    ["report", "runs/s"],
    ["list", "runs"],
]
NEEDING = {
    "onnx": ["export", "runs/s/a/seed-0", "--to", "onnx"],
    "ray": ["run", "s.yaml", "--executor", "ray", "train.epochs=2"],
    "parquet": ["data", "check", "table.parquet"],
    "timm": ["train", "digits", "{timm: {name: resnet18}}"],
    "clip": ["train", "digits", "openclip"],
    "classical": ["train", "digits", "hog_svm"],
    "serve": ["serve", "runs/s/a/seed-0"],
}
STUDY = """
data: {digits: {subset: 100}}
train: {epochs: 1, precision: float32, threads: 1}
runs:
  a: {model: linear}
  b: {model: {mlp: {widths: [4]}}}
  c: {estimator: knn}
"""
COMMANDS = (
    HIDE
    + f"""
import os, importlib
import stresslens
for name in {[name for name in names_of_modules() if not name.startswith("stresslens.serve.")]!r}:
    importlib.import_module(name)
from stresslens.cli import main

def typed(words):
    sys.argv = ["stresslens", *words]
    try:
        main.main()
        return 0
    except SystemExit as end:
        return int(end.code or 0)

for words in {VERBS!r}:
    code = typed(words)
    assert code in (0, 5), (words, code)
for name, words in {NEEDING!r}.items():
    print("NEEDS", name, typed(words), flush=True)
"""
)


@pytest.mark.slow  # every verb, in a process
def test_every_module_and_the_default_verbs_work_without_any_extra(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "s.yaml").write_text(STUDY)
    (tmp_path / "table.csv").write_text("attack,eps,accuracy,n\nnone,0,0.9,100\npgd,0.1,0.4,100\n")
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "picture.png")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    codes = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("NEEDS"))
    assert codes == dict.fromkeys(NEEDING, "2") | {"parquet": "3"}
    assert "Traceback" not in done.stderr
    for name in NEEDING:
        assert f"pip install 'stresslens[{name}]'" in " ".join(done.stderr.split())


def test_every_extra_is_a_row_of_the_table_in_the_documentation() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    for name, packages in PROJECT["optional-dependencies"].items():
        if name not in ("all", "docs", "test"):
            brings = ", ".join(package.partition(">")[0] for package in packages)
            assert f"\n| `{name}` | {brings} | " in page
