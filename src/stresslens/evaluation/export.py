"""Model export: ONNX, torch.export, safetensors with a description of the architecture, or a page.

Every export is checked: it is opened again as `stresslens predict` opens it (a page is computed in
Python), and its logits are compared with the run's. An export whose logits differ is not kept.
"""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.kept_files import kept_files
from stresslens.config.own_plugins import own_plugins, source_of
from stresslens.core.cards import card
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.extras import extra, require
from stresslens.core.files import write_bytes
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.spelling import closest
from stresslens.core.tables import ResultTable, Tabular
from stresslens.core.temporary_files import leftovers_of, new_name, temporary_folder
from stresslens.core.text import brief, counted
from stresslens.evaluation import scores
from stresslens.evaluation.docker_export import docker_files
from stresslens.evaluation.finished_run import data_of
from stresslens.evaluation.flat_graph import flat_graph
from stresslens.evaluation.guarantees import calibration_content
from stresslens.evaluation.model_info import ModelInfo, model_info
from stresslens.evaluation.page_export import Checked, check_card_for_page, page_of
from stresslens.evaluation.page_file import read_page
from stresslens.evaluation.predictor import (
    CALIBRATION,
    CALIBRATION_ARRAYS,
    EXPORT,
    FACTS,
    OOD_ARRAYS,
    Predictor,
    open_predictor,
)
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.traced_graph import dynamic_shapes, said_if_it_works, traced_graph

NAMES = {
    "onnx": "model.onnx",
    "torch": "model.pt2",
    "safetensors": "safetensors",
    "docker": "docker",
    "page": "page.html",
}
FOLDERS = ("safetensors", "docker")
"""The exports that are a folder."""
OPSET = 18
"""The first ONNX opset whose Resize has antialiasing."""
ALLOWED = 1e-4
"""Largest difference allowed between logits; relative to the size of the highest logit of the image,
and of the logit itself, where these are above 1."""
BATCHES = [1, 2, 7, 22]
"""Sizes of the batches that the check runs."""


@dataclass(frozen=True, repr=False)
class Exported(Tabular):
    """The exported file, and the largest `difference` of its logits from the run's, on `images`."""

    file: Path
    format: str
    size: int
    """Bytes."""
    opset: int | None
    difference: float
    allowed: float
    images: int
    shown: str
    """Where the images come from: the split's name, or "random"."""

    def __repr__(self) -> str:
        return f"Exported({brief(str(self.file), 200)}, {self._said})"

    def _repr_html_(self) -> str:
        return card(str(self.file), f"{self._said}.")

    @property
    def _said(self) -> str:
        """Size and check of the file in words."""
        checked = f"logits differ by at most {self.difference:.2g} (allowed {self.allowed:g})"
        return f"{self.format}, {self.size / 1e6:.3g} MB; {checked} on {self.images:,} {self.shown} images"

    def _table(self) -> ResultTable:
        values = vars(self) | {"file": str(self.file)}
        return ResultTable(tuple(values), [tuple(values.values())])

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "file": str(self.file), "batches": BATCHES}


def export_run(
    folder: RunFolder,
    to: str,
    *,
    out: Path | None = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> Exported:
    """Writes a run's model to `out` (default: in the run's `exports`), and replaces an old export.

    The export includes the resizing and normalisation, and all that `stresslens predict` needs.
    Your own plug-ins are executed only with `trust`. `module` is the architecture if the run was
    trained on your own module. Raises ConfigError if the run cannot be exported, and if the
    exported logits differ from the run's; nothing is written then.
    """
    card = _card_of_net(folder, to, module)
    if to == "onnx":
        require("onnx", "ONNX")
    if to == "page":
        check_card_for_page(card, folder)
    target, facts = _target(folder, to, out), model_info(folder)
    model = open_model(folder, trust=trust, module=module)
    not_finite = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if not_finite:
        raise ConfigError(
            f"{folder.path}: "
            f"{counted(len(not_finite), 'tensor of its weights is', 'tensors of its weights are')} "
            f"not finite, first {not_finite[0]}; "
            "train it again"
        )
    x, shown = _images(folder, card, trust, to)
    expected = _expected(model, x, folder)
    if to in FOLDERS:
        beside = docker_files(folder, card) if to == "docker" else {}
        inside = {**_weights(folder, card, facts), **beside}
        files = {f"{target.name}/{name}": content for name, content in inside.items()}
    elif to == "page":
        graph = flat_graph(model, card.shape)
        checked = Checked(_difference(graph.run, x, expected), ALLOWED, len(x), shown)
        files = {target.name: page_of(folder, model, graph, facts, checked, trust=trust)}
    else:
        files = {target.name: GRAPHS[to](traced_graph(model, card.shape), _metadata(folder, facts))}
    with _draft_of(target) as draft:
        for name, content in files.items():
            write_bytes(draft / name, content)
        answer: Callable[[Tensor], Tensor] = (
            read_page(draft / target.name)[0].run
            if to == "page"
            else _logits_of(open_predictor(draft / target.name, trust=True, module=module))
        )
        difference = _difference(answer, x, expected)
        if not difference <= ALLOWED:
            raise ConfigError(
                f"{target} was not written: its logits differ from the run's by {difference:.2g} "
                f"over {len(x)} {shown} images; at most {ALLOWED:.2g} is allowed"
            )
        _move(draft / target.name, target)
    size, opset = sum(map(len, files.values())), OPSET if to == "onnx" else None
    return Exported(target, to, size, opset, difference, ALLOWED, len(x), shown)


def _card_of_net(folder: RunFolder, to: str, module: nn.Module | None) -> ModelCard:
    if to not in NAMES:
        raise ConfigError(f"no format is called {to!r}; {closest(to, list(NAMES))}")
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        name = registry.name_and_options("estimators", card.estimator)[0]
        raise ConfigError(
            f"{folder.path} is the estimator {name}, not a network; "
            f"what it has learned is in {folder.estimator}"
        )
    of_module = module is not None or str(card.model).startswith("own module")
    kept = [] if of_module else kept_files(card.model, base=folder.path)
    if kept and (to in FOLDERS or kept[0].as_it_is):
        raise ConfigError(
            f"{folder.path} is computed from a file, of which it has a copy; use that: "
            f"{folder.path / kept[0].given}"
        )
    if any(isinstance(member, EstimatorCard) for member in card.members):
        raise ConfigError(f"{folder.path} is an ensemble with an estimator, which is not a network")
    if module is None and str(card.model).startswith("own module"):
        raise ConfigError(
            f"{folder.path} was trained on your {card.model}; "
            f"export it from Python: stresslens.export(run, {to!r}, module=net)"
        )
    return card


def _target(folder: RunFolder, to: str, out: Path | None) -> Path:
    """The path of the export. Raises ConfigError if `out` is something else."""
    name = NAMES[to]
    if out is None:
        return folder.path / "exports" / name
    if to in FOLDERS:
        if out.suffix == ".safetensors" or out.is_file():
            raise ConfigError(
                f"--out {out}: {to} is a folder (weights, and how to build their net); name one"
            )
        begun = (out / EXPORT).is_file() or leftovers_of(out / EXPORT)
        if out.is_dir() and any(out.iterdir()) and not begun:
            raise ConfigError(f"--out {out}: there is something else in this folder; name another")
        return out.resolve()  # "." has no name, its absolute path has one
    target = out if out.suffix and not out.is_dir() else out / name
    if target.suffix != Path(name).suffix:
        raise ConfigError(f"--out {out}: a file for {to} ends in {Path(name).suffix}")
    return target


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; it is removed at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = ExitStack()
        path = draft.enter_context(temporary_folder(target))
    except OSError as error:
        raise ConfigError(
            f"cannot write to {target.parent}: {error.strerror}; choose another place with --out"
        ) from error
    with draft:
        yield path


def _move(draft: Path, target: Path) -> None:
    """Moves an export to its place at once, or file by file into a folder that exists.

    Until all files are there, the description that makes a folder an export has a temporary name. So
    what a kill leaves is never taken for an export, and the next export goes on from it.
    """
    if not target.is_dir():
        draft.replace(target)
        return
    if (target / EXPORT).is_file():
        (target / EXPORT).replace(new_name(target / EXPORT))
    else:
        new_name(target / EXPORT).touch()
    for kept in ("likeness.npz", CALIBRATION):
        (target / kept).unlink(missing_ok=True)
    files = [path.relative_to(draft) for path in draft.rglob("*") if path.is_file()]
    for name in sorted(files, key=lambda name: name.name == EXPORT):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(target / name)
    for replaced in leftovers_of(target / EXPORT):
        replaced.unlink(missing_ok=True)


def _images(folder: RunFolder, card: ModelCard, trust: bool, to: str) -> tuple[Tensor, str]:
    """Images for the check, and where they come from.

    They are spread over the run's validation images, or else its training images. If the data set
    cannot be loaded, they are random. For a page, on which people draw, there are random ones too.
    """
    n = sum(BATCHES)
    random = torch.rand(n, *card.shape, generator=torch.Generator().manual_seed(0))
    try:
        data: Data | None = data_of(folder, trust=trust)
    except StresslensError:
        data = None
    if data is None or data.shape != card.shape:
        return random, "random"
    split, shown = (data.train, "train") if data.validation is None else (data.validation, "validation")
    part = split.select(torch.linspace(0, len(split) - 1, n).long())
    x = part.floats(part.images[:]).float()
    return (torch.cat([x, random]), f"{shown} and random") if to == "page" else (x, shown)


def _expected(model: nn.Module, x: Tensor, folder: RunFolder) -> Tensor:
    """The run's logits. Raises ConfigError if a second pass gives other logits."""
    split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
    first, second = (scores.logits_of(model, split) for _ in range(2))
    if apart := _apart(first, second):
        raise ConfigError(
            f"{folder.path}: the model is random: logits of the same images differ by {apart:.2g} "
            "from one pass to the next, so an exported file cannot be checked against it"
        )
    return first


def _difference(answer: Callable[[Tensor], Tensor], x: Tensor, expected: Tensor) -> float:
    sizes = BATCHES * (len(x) // sum(BATCHES))
    pairs = zip(torch.split(x, sizes), torch.split(expected.double(), sizes))
    return max(_apart(answer(images), logits) for images, logits in pairs)


def _logits_of(predictor: Predictor) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.from_numpy(predictor.answer(images)[0])


def _apart(first: Tensor, second: Tensor) -> float:
    """The largest difference of logits (N, K), see `ALLOWED`; NaN differs from numbers, not from NaN."""
    same = (first == second) | (first.isnan() & second.isnan())
    size = torch.maximum(second.abs(), second.amax(1, keepdim=True).abs()).clamp_min(1)
    return float(torch.where(same, 0.0, (first - second).abs() / size).nan_to_num(torch.inf).max())


def _onnx(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    with extra("onnx", "ONNX"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    try:
        with said_if_it_works(), warnings.catch_warnings():
            # torch's exporter calls functions that torch deprecates.
            warnings.filterwarnings("ignore", category=FutureWarning)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "features"],
                dynamic_shapes=dynamic_shapes(),
                opset_version=OPSET,
                verbose=False,
            )
        assert exported is not None
        exported.model.metadata_props.update(metadata)
        for node in exported.model.graph:
            node.metadata_props.clear()  # they name the modules of our classes
        content: bytes = exported.model_proto.SerializeToString()
    except Exception as error:  # for example an operation that ONNX lacks, or more than 2 GB in one file
        raise ConfigError(
            f"ONNX cannot hold the model: {first_line(error)}. "
            "Every model can be exported with --to safetensors"
        ) from error
    return content


def _torch(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=metadata)
    return content.getvalue()


GRAPHS = {"onnx": _onnx, "torch": _torch}


def _metadata(folder: RunFolder, facts: ModelInfo) -> dict[str, str]:
    """The metadata beside a graph: model facts; the OOD detector and calibration images if any."""
    metadata = {FACTS: _json(facts)}
    if folder.likeness.is_file():
        metadata[OOD_ARRAYS] = base64.b64encode(folder.likeness.read_bytes()).decode()
    if (images := calibration_content(folder)) is not None:
        metadata[CALIBRATION_ARRAYS] = base64.b64encode(images).decode()
    return metadata


def _weights(folder: RunFolder, card: ModelCard, facts: ModelInfo) -> dict[str, bytes]:
    """The files of a safetensors export by name: weights, card, plug-ins, and what `_metadata` holds."""
    own = [source for name in own_plugins(card.model) if (source := source_of(name, base=folder.path))]
    sources = [folder.weights, folder.card, *(path for path in (folder.likeness, *own) if path.is_file())]
    inside = [path for path in sources if path.is_relative_to(folder.path)]
    images = calibration_content(folder)
    return (
        {str(path.relative_to(folder.path)): path.read_bytes() for path in inside}
        | ({} if images is None else {CALIBRATION: images})
        | {EXPORT: _json(facts).encode()}
    )


def _json(facts: ModelInfo) -> str:
    return json.dumps(facts.as_json(), indent=1, ensure_ascii=False)
