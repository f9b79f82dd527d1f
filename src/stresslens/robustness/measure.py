"""Robustness of a model: attacks × radii → every image's smallest broken radius → curve, table and
traces; resumable."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stresslens.config import registry
from stresslens.config.threat_model import BoundAttack, ThreatModel
from stresslens.core import devices
from stresslens.core.attack_base import agrees_with_itself, attacked
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.layers import straight_through
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import sampled_positions
from stresslens.evaluation.inputs import check_inputs
from stresslens.robustness.attack_batch import verdict_model
from stresslens.robustness.autotune import AttackCompute, autotune_attack
from stresslens.robustness.radius_search import ImageChunk, RadiusSearch, save_chunk
from stresslens.robustness.result import AttackResult, result_arrays, result_file, threat_settings
from stresslens.robustness.result_file import ResultFile

RANDOM_PASSES = 20
"""Passes that the verdict and the gradients of a random model are averaged over."""
AGREE = 1e-4
"""How far apart the normalised logits of one image may lie in several passes of a model that counts
as deterministic."""
CHUNK_SECONDS = 20.0
"""What the costliest attack may take on a chunk."""
SMALLEST_CHUNK, LARGEST_CHUNK = 32, 1024

Tell = Callable[[int, int], None]
"""How many images are decided, of how many."""


def measure(
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    home: Path | None = None,
    reported: Callable[[np.ndarray], float | None] = lambda index: None,
    surrogate: nn.Module | None = None,
    tell: Tell = lambda decided, total: None,
) -> tuple[AttackResult, Path | None]:
    """Attacks the model and returns what was found, with its folder below `home` where one is
    given; finished there, it is read.

    `split` holds the images and their labels; `reported` says what accuracy the model's record has
    for the images at some places. Raises ConfigError and DataError, before any computing, for a
    model or images that cannot be attacked.
    """
    check_inputs(model, split)
    devices.keep_memory()
    if threat.needs_surrogate and surrogate is None:
        raise ConfigError(
            "the attack transfer needs a surrogate: another model for the same images (surrogate=…, or --surrogate RUN)"
        )
    index = sampled_positions(len(split), threat.settings.get("images", "all"), threat.seed)
    images = split.select(index) if len(index) < len(split) else split
    model = straight_through(model, threat.settings["bpda"])
    with attacked(model, seed=threat.seed):
        asked = fingerprint_of([threat_settings(threat), images.fingerprint])
        earlier = _fingerprints(asked, model, surrogate)
        fingerprint = next(earlier)
        key = f"{threat.norm}-{threat.protocol}-{asked[:8]}"
        folder = home / key if home is not None else None
        if folder is not None and (folder / "result.json").is_file():
            if ResultFile.read(folder / "result.json").fingerprint not in chain([fingerprint], earlier):
                raise ConfigError(
                    f"{folder} holds the result of another model; choose another folder, or delete it"
                )
            return AttackResult.load(folder), folder
        with nullcontext() if folder is None else RunFolder(folder).locked():
            began = time.perf_counter()
            compute, size = _settled(model, images, threat, folder, fingerprint, earlier)
            float32_logits = verdict_model(model, passes=compute.passes, seed=threat.seed)
            search = RadiusSearch(model, float32_logits, threat, compute, surrogate=surrogate)
            with compute.active():
                chunks = list(_chunks(search, images, index, size, folder, tell))
                arrays = result_arrays(chunks, threat, float32_logits)
            seconds = time.perf_counter() - began
            known = reported(index.numpy())
            robust = AttackResult(
                arrays,
                result_file(arrays, chunks, threat, key, fingerprint, len(index), known, compute, seconds),
            )
            if folder is not None:
                robust.save(folder)
                shutil.rmtree(folder / "chunks", ignore_errors=True)
    return robust, folder


def _chunks(
    search: RadiusSearch, images: Split, index: torch.Tensor, size: int, folder: Path | None, tell: Tell
) -> Iterator[ImageChunk]:
    """The images attacked `size` at a time."""
    for start in range(0, len(images), size):
        x = images.floats(images.images[start : start + size]).to(search.device, torch.float32)
        y, places = images.labels[start : start + size].to(x.device), index[start : start + size].to(x.device)
        yield _chunk(search, x, y, places, folder, start, partial(_tell_from, tell, start, len(images)))
        tell(start + len(x), len(images))


def _tell_from(tell: Tell, before: int, total: int, some: int) -> None:
    tell(before + some, total)


def _chunk(
    search: RadiusSearch,
    x: Any,
    y: Any,
    places: Any,
    folder: Path | None,
    start: int,
    tell: Callable[[int], None],
) -> ImageChunk:
    """The search on these images, kept in the folder; found there, it is read or goes on."""
    if folder is None:
        return search.of(x, y, places, tell=tell)
    done, state = folder / "chunks" / f"{start:07d}.npz", folder / "chunks" / f"{start:07d}.under-way.npz"
    if done.exists():
        return search.begun(x, y, places, done)
    chunk = search.of(x, y, places, state=state, tell=tell)
    save_chunk(done, chunk)
    state.unlink(missing_ok=True)
    return chunk


def _settled(
    model: nn.Module,
    images: Split,
    threat: ThreatModel,
    folder: Path | None,
    fingerprint: str,
    earlier: Iterator[str],
) -> tuple[AttackCompute, int]:
    """How the search runs and how many images a chunk has: as an earlier attempt settled it, else
    by measuring."""
    file = folder / "chunks" / "settled.json" if folder is not None else None
    if file is not None and file.exists():
        kept = read_json(file)
        if kept["fingerprint"] in chain([fingerprint], earlier):
            return AttackCompute(**kept["steering"]), int(kept["chunk"])
        raise ConfigError(
            f"{folder} holds a search that was begun on another model; choose another folder, or delete it"
        )
    first = next((p for p in model.parameters()), torch.empty(0))
    x = images.floats(images.images[:512]).to(first.device, torch.float32)
    asked = threat.settings.get("passes", "auto")
    passes = (
        (1 if agrees_with_itself(model, x[:32]) <= AGREE else RANDOM_PASSES)
        if asked == "auto"
        else int(asked)
    )
    with torch.random.fork_rng(devices=[]):
        compute = autotune_attack(model, x, passes=passes)
    each = compute.seconds * max([_gradients(one) for one in (*threat.attempts, *threat.alone)], default=1.0)
    size = int(CHUNK_SECONDS / max(each, 1e-9)) // 32 * 32
    size = min(max(size, SMALLEST_CHUNK), LARGEST_CHUNK)
    if file is not None:
        write_json(file, {"fingerprint": fingerprint, "steering": compute.as_json(), "chunk": size})
    return compute, size


def _gradients(each: BoundAttack) -> float:
    """About how many gradients an attack takes for an image that it does not break; a forward pass
    counts a third."""
    declared = registry.options_of(each.bound.function)
    options = {name: each.bound.options.get(name, option.default) for name, option in declared.items()}
    targeted = each.bound.function.__name__ == "fab" or options.get("loss") in (
        "auto",
        "dlr_targeted",
        "margin_targeted",
    )
    steps = float(options.get("steps") or 1) * float(options.get("restarts") or 1) * (9 if targeted else 1)
    return max(steps, float(options.get("queries") or 0) / 3, 1.0)


def _digest(model: nn.Module, home: Callable[[str], str] | None = None) -> str:
    """Changes with the architecture, the plain attributes of every module, and every parameter and buffer.

    A class counts by its name, wherever it lies; with `home`, a function of the module's path, also by that.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        plain_ones = {
            k: v
            for k, v in vars(module).items()
            if k != "training" and isinstance(v, bool | int | float | str | tuple)
        }
        kind = (
            type(module).__qualname__
            if home is None
            else f"{home(type(module).__module__)}.{type(module).__qualname__}"
        )
        digest.update(f"{name} {kind} {sorted(plain_ones.items())!r}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().double().numpy()).data)
    return digest.hexdigest()[:16]


def _fingerprints(request: str, model: nn.Module, surrogate: nn.Module | None) -> Iterator[str]:
    """The fingerprint of an attack on this model, then those that version 0.1.0 may have written
    for the same one.

    That version also hashed where each class was defined. Its own plug-ins lay elsewhere, and the
    user's classes may have been defined in a script.
    """
    homes: list[Callable[[str], str] | None] = [
        None,
        _home_in_0_1,
        lambda path: _home_in_0_1(path, own="__main__"),
    ]
    for home in homes:
        yield fingerprint_of(
            [request, *(None if each is None else _digest(each, home) for each in (model, surrogate))]
        )


def _home_in_0_1(path: str, own: str | None = None) -> str:
    if own is not None and path.partition(".")[0] not in (
        "torch",
        "torchvision",
        "timm",
        "open_clip",
        "stresslens",
    ):
        return own
    return path.replace("stresslens.plugins.", "stresslens.", 1)
