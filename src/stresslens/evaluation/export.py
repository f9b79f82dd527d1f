"""A trained run as a file that others read: ONNX, a program of torch.export, or weights and how to
build their net.

Nothing is left that does not answer as the run does: it is opened again as `stresslens predict`
would, and asked about images.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.own_plugins import own_plugins, source_of
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, StresslensError, closest, first_line
from stresslens.core.files import write_atomically
from stresslens.core.inspection import feature_layer, with_features
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.types import Shape
from stresslens.evaluation import scores
from stresslens.evaluation.finished_run import data_of
from stresslens.evaluation.predictor import (
    EXPORT,
    FACTS,
    LIKENESS,
    NEEDS_ONNX,
    Answer,
    ModelInfo,
    model_info,
    open_predictor,
)
from stresslens.evaluation.saved_model import open_model

NAMES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "safetensors"}
OPSET = 18
"""The first of ONNX whose Resize has antialiasing."""
ALLOWED = 1e-4
"""Logits may differ by so much, or by so much of the largest of them where that is above 1."""
BATCHES = [1, 2, 7, 22]
"""Sizes of the batches in which the images of the check are shown."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its logits are from the run's: the largest `difference` over so
    many `images`."""

    file: Path
    format: str
    size: int
    """Bytes."""
    opset: int | None
    difference: float
    allowed: float
    images: int
    shown: str
    """Whose images: the split's name, or random."""

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
    """Writes a run's model to `out`, by default below the run's `exports`, in place of what was there.

    The model's resizing and normalising go with it; so does all that `stresslens predict` asks for.
    Own plug-ins are executed only with `trust`; `module` is the architecture of a run that was
    trained on the caller's own. Raises ConfigError for what cannot be exported, and when the file's
    logits are not the run's: then nothing is left.
    """
    card = _card_of_net(folder, to, module)
    place, facts = _place(folder, to, out), model_info(folder)
    model = open_model(folder, trust=trust, module=module).eval()
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise ConfigError(
            f"{folder.path}: {len(broken)} tensors of its weights are not finite, first {broken[0]}; train it again"
        )
    x, shown = _images(folder, card, trust)
    expected = _expected(model, x, folder)
    allowed = ALLOWED * max(1.0, float(expected.abs().max()))
    if to == "safetensors":
        files = {f"{place.name}/{name}": content for name, content in _weights(folder, card, facts).items()}
    else:
        files = {place.name: GRAPHS[to](_graph(model, card.shape), _kept(folder, facts))}
    with _draft(place) as draft:
        for name, content in files.items():
            write_atomically(draft / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
        difference = _difference(
            open_predictor(draft / place.name, trust=True, module=module).answer, x, expected
        )
        if not difference <= allowed:
            raise ConfigError(
                f"{place} was not written: its logits differ from the run's by {difference:.2g} over {len(x)} {shown} images; "
                f"at most {allowed:.2g} is allowed"
            )
        for old in (EXPORT, "likeness.npz") if place.is_dir() else ():
            (place / old).unlink(missing_ok=True)
        for name in files:
            (place.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).replace(place.parent / name)
    size, opset = sum(map(len, files.values())), OPSET if to == "onnx" else None
    return Exported(place, to, size, opset, difference, allowed, len(x), shown)


def _card_of_net(folder: RunFolder, to: str, module: nn.Module | None) -> ModelCard:
    if to not in NAMES:
        raise ConfigError(f"no format is called {to!r}; {closest(to, list(NAMES))}")
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        name = registry.name_and_options("estimators", card.estimator)[0]
        raise ConfigError(
            f"{folder.path} is the estimator {name}, not a network; what it has learned is in {folder.estimator}"
        )
    if module is None and str(card.model).startswith("own module"):
        raise ConfigError(
            f"{folder.path} was trained on your {card.model}; export it from Python: stresslens.export(run, {to!r}, module=net)"
        )
    return card


def _place(folder: RunFolder, to: str, out: Path | None) -> Path:
    """Where the file or folder is to be. Raises ConfigError for a place that means something else."""
    name = NAMES[to]
    if out is None:
        return folder.path / "exports" / name
    if to == "safetensors":
        if out.suffix == ".safetensors" or out.is_file():
            raise ConfigError(
                f"--out {out}: safetensors is a folder (weights, and how to build their net); name one"
            )
        if out.is_dir() and any(out.iterdir()) and not (out / EXPORT).is_file():
            raise ConfigError(f"--out {out}: there is something else in this folder; name another")
        return out.resolve()  # so that it has a name, which "." has not
    place = out if out.suffix and not out.is_dir() else out / name
    if place.suffix != Path(name).suffix:
        raise ConfigError(f"--out {out}: a file for {to} ends in {Path(name).suffix}")
    return place


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A folder on the same disk, which is gone afterwards."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.TemporaryDirectory(prefix=".export-", dir=place.parent)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {place.parent}: {error.strerror}; choose another place with --out"
        ) from error
    with draft as path:
        yield Path(path)


def _images(folder: RunFolder, card: ModelCard, trust: bool) -> tuple[Tensor, str]:
    """Images for the check, spread over the run's validation or training images, or random where
    they cannot be loaded."""
    n = sum(BATCHES)
    try:
        data: Data | None = data_of(folder, trust=trust)
    except StresslensError:
        data = None
    if data is None or data.shape != card.shape:
        return torch.rand(n, *card.shape, generator=torch.Generator().manual_seed(0)), "random"
    split, shown = (data.train, "train") if data.validation is None else (data.validation, "validation")
    part = split.select(torch.linspace(0, len(split) - 1, n).long())
    return part.floats(part.images[:]).float(), shown


def _expected(model: nn.Module, x: Tensor, folder: RunFolder) -> Tensor:
    """The run's logits, in one batch. Raises ConfigError for a model that answers otherwise the
    second time."""
    split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
    first, second = (scores.logits_of(model, split) for _ in range(2))
    if not torch.equal(first, second):
        apart = float((first - second).abs().max())
        raise ConfigError(
            f"{folder.path}: the model is random: logits of the same images differ by {apart:.2g} from one pass to the next, so "
            "that no file could be said to answer as it does"
        )
    return first


def _difference(answer: Answer, x: Tensor, expected: Tensor) -> float:
    pairs = zip(torch.split(x, BATCHES), torch.split(expected.double(), BATCHES))
    return max(float((torch.from_numpy(answer(images)[0]) - logits).abs().max()) for images, logits in pairs)


class _WithFeatures(nn.Module):
    """Images → logits, and the features that tell whether they are like those trained on."""

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.model = model
        self.layer = (feature_layer(model, shape)[0],)  # in a tuple, since it is no further part

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return with_features(self.model, self.layer[0], images)


def _sizes() -> dict[str, Any]:
    """That batches are of any size."""
    return {"images": {0: torch.export.Dim("batch")}}


def _graph(model: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    """What torch does with images, for batches of any size. Raises ConfigError where that depends
    on more than shapes."""
    try:
        with torch.no_grad():
            whole, example = _WithFeatures(model, shape).eval(), torch.zeros(2, *shape)
            whole(
                example
            )  # some nets keep on first use what does not change in evaluation, which is then a constant of the graph
            program = torch.export.export(whole, (example,), dynamic_shapes=_sizes())
    except Exception as error:  # whatever torch, or a module of somebody's own, finds impossible
        raise ConfigError(
            f"torch.export cannot follow the model: {first_line(error)}\n"
            "Usual causes: the batch size taken with len(x) (x.shape[0] stays open), and decisions by values. "
            "Every model can be exported with --to safetensors"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # which names the files of whoever exports
    return program


def _onnx(program: torch.export.ExportedProgram, kept: dict[str, str]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(NEEDS_ONNX) from None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", category=FutureWarning
            )  # torch's exporter calls what torch deprecates
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "features"],
                dynamic_shapes=_sizes(),
                opset_version=OPSET,
                verbose=False,
            )
        assert exported is not None
        exported.model.metadata_props.update(kept)
        for node in exported.model.graph:
            node.metadata_props.clear()  # which name the modules that our classes lie in
        content: bytes = exported.model_proto.SerializeToString()
    except Exception as error:  # an operation that ONNX has not, or more than the 2 GB of one file
        raise ConfigError(
            f"ONNX cannot hold the model: {first_line(error)}. Every model can be exported with --to safetensors"
        ) from error
    return content


def _torch(program: torch.export.ExportedProgram, kept: dict[str, str]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=kept)
    return content.getvalue()


GRAPHS = {"onnx": _onnx, "torch": _torch}


def _kept(folder: RunFolder, facts: ModelInfo) -> dict[str, str]:
    """What a file holds beside its graph."""
    kept = {FACTS: _json(facts)}
    if folder.likeness.is_file():
        kept[LIKENESS] = base64.b64encode(folder.likeness.read_bytes()).decode()
    return kept


def _weights(folder: RunFolder, card: ModelCard, facts: ModelInfo) -> dict[str, bytes]:
    """The run's own files that its model is built from, by their names, and the facts."""
    own = [source for name in own_plugins(card.model) if (source := source_of(name, base=folder.path))]
    sources = [folder.weights, folder.card, *(path for path in (folder.likeness, *own) if path.is_file())]
    inside = [path for path in sources if path.is_relative_to(folder.path)]
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in inside} | {
        EXPORT: _json(facts).encode()
    }


def _json(facts: ModelInfo) -> str:
    return json.dumps(facts.as_json(), indent=1, ensure_ascii=False)
