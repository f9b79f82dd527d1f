"""Robust accuracy of a model: attacks it, finds the minimal radius of every image, and computes the
curve, the table and the traces. An interrupted computation resumes."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stresslens.config.threat_model import (
    RULES,
    BoundAttack,
    ThreatModel,
    settings_of_result,
    why_not_attacked,
)
from stresslens.core import devices
from stresslens.core.attack_base import agrees_with_itself, attacked
from stresslens.core.data import Split
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_json, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.gradient_free import NoGradient, why_no_gradient
from stresslens.core.layers import straight_through
from stresslens.core.pieces import FLOAT, at_most
from stresslens.core.progress import foretell
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import sampled_positions
from stresslens.evaluation.inputs import check_inputs
from stresslens.robustness import kept_result
from stresslens.robustness.attack_batch import verdict_model
from stresslens.robustness.autotune import AttackCompute, autotune_attack
from stresslens.robustness.radius_search import ImageChunk, RadiusSearch, save_chunk
from stresslens.robustness.result import AttackResult, result_arrays, result_file
from stresslens.robustness.result_file import attacked_images
from stresslens.robustness.surrogate import check_surrogate

RANDOM_PASSES = 20
"""Forward passes over which the logits and gradients of a random model are averaged."""
AGREE = 1e-4
"""A model is deterministic if its normalised logits of one image differ by at most this in several
passes."""
CHUNK_SECONDS = 20.0
"""The size of a chunk is chosen so that the most expensive attack takes about this long on it."""
SMALLEST_CHUNK, LARGEST_CHUNK = 32, 1024
COPIES = 16
"""Attacks hold about so many copies of a chunk: iterates, gradients, the best so far."""

QUICKER = "fewer images (--images 20), a list of attacks (--protocol '[fgsm]')"

OnProgress = Callable[[int, int], None]
"""Receives the number of images whose minimal radius is decided, and the number of all images."""


def measure(
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    home: Path | None = None,
    reported: Callable[[np.ndarray], float | None] = lambda index: None,
    surrogate: nn.Module | None = None,
    on_progress: OnProgress = lambda decided, total: None,
) -> tuple[AttackResult, Path | None]:
    """Attacks the model and returns the result, and its folder if `home` is given.

    `split` holds the images and their labels; those of a fixed target class are left out, because
    they cannot be attacked towards it. The folder is `home/<norm>-<protocol>-<8 hex>`; a finished
    result there is only read. `reported` returns the accuracy that the model's record has
    for the images at some positions (n,) of the split. Raises ConfigError and DataError, before any
    computing, for a model or images that cannot be attacked.
    """
    check_inputs(model, split)
    devices.keep_memory()
    index = sampled_positions(len(split), threat.config.images, threat.seed)
    images = split.select(index) if len(index) < len(split) else split
    _check_targets(threat, images)
    check_gradients(threat, model)
    check_surrogate(threat, surrogate, model, images)
    model = straight_through(model, threat.config.bpda)
    with attacked(model, seed=threat.seed):
        request = fingerprint_of([settings_of_result(threat), images.fingerprint])
        first = images.floats(images.images[: kept_result.PROBED]).to(torch.float32)
        fingerprint = kept_result.attack_fingerprint(request, model, surrogate, first)
        key = f"{threat.norm}-{threat.protocol}-{request[:8]}"
        folder = home / key if home is not None else None
        if folder is not None and (folder / "result.json").is_file():
            known = chain([fingerprint], kept_result.fingerprints_of_0_1(request, model, surrogate))
            return _kept(folder, known, model, images, threat.seed), folder
        with nullcontext() if folder is None else RunFolder(folder).locked():
            began = time.perf_counter()
            compute, size = _compute_and_chunk_size(model, images, threat, folder, fingerprint)
            _foretell(compute, threat, len(images))
            float32_logits = verdict_model(model, passes=compute.passes, seed=threat.seed)
            search = RadiusSearch(model, float32_logits, threat, compute, images, surrogate=surrogate)
            with compute.active():
                chunks = list(_attack_chunks(search, images, index, size, folder, on_progress))
                arrays = result_arrays(chunks, threat, float32_logits)
            seconds = time.perf_counter() - began
            clean = reported(attacked_images(arrays)["index"])
            robust = AttackResult(
                arrays,
                result_file(arrays, chunks, threat, key, fingerprint, len(index), clean, compute, seconds),
            )
            if folder is not None:
                robust.save(folder)
                _remove_chunks(folder)
    return robust, folder


def _kept(
    folder: Path, fingerprints: Iterable[str], model: nn.Module, images: Split, seed: int
) -> AttackResult:
    """The finished result in a folder. Raises ConfigError if it is of another model."""
    kept = AttackResult.load(folder)
    if kept.result.fingerprint not in fingerprints or not kept_result.is_result_of(
        kept, model, lambda rows: images.floats(images.images[torch.from_numpy(rows)]), seed
    ):
        raise ConfigError(
            f"{folder} holds the result of another model, or of this one with other code, settings "
            "or attributes; choose another folder, or delete it"
        )
    _remove_chunks(folder)
    return kept


def _remove_chunks(folder: Path) -> None:
    """Removes what an unfinished attack kept."""
    shutil.rmtree(folder / "chunks", ignore_errors=True)


def check_gradients(threat: ThreatModel, model: nn.Module) -> None:
    """Raises NoGradient where attacks follow the gradient of a model that has none."""
    if (what := why_no_gradient(model)) and (why := why_not_attacked(threat, what)):
        raise NoGradient(why)


def _check_targets(threat: ThreatModel, images: Split) -> None:
    """Raises ConfigError for a target class that is given by a name, and DataError if all images are
    of the target class."""
    for target in (threat.target, *(attack.target for attack in threat.alone)):
        if isinstance(target, str) and target not in RULES:
            raise ConfigError(
                f"target: {str(target)!r}: give the class by its number; names are known of runs only. "
                f"Or a rule: {', '.join(RULES)}"
            )
    if isinstance(threat.target, int) and bool((images.labels == threat.target).all()):
        raise DataError(
            f"target: all {len(images)} images are of the class {threat.target}, "
            "and none can be attacked towards what it is"
        )


def _attack_chunks(
    search: RadiusSearch,
    images: Split,
    index: torch.Tensor,
    size: int,
    folder: Path | None,
    on_progress: OnProgress,
) -> Iterator[ImageChunk]:
    """Attacks the images in chunks of `size`. If there is a folder, each chunk is saved there, and
    a saved one is read or resumed."""
    for start in range(0, len(images), size):
        x = images.floats(images.images[start : start + size]).to(search.device, torch.float32)
        y = images.labels[start : start + size].to(x.device)
        positions = index[start : start + size].to(x.device)
        finished = None if folder is None else folder / "chunks" / f"{start:07d}.npz"
        if finished is not None and finished.exists():
            yield search.open_chunk(x, y, positions, finished)
        else:
            state = None if finished is None else finished.with_name(f"{start:07d}.under-way.npz")
            chunk = search.search_chunk(
                x,
                y,
                positions,
                state=state,
                on_progress=lambda decided, start=start: on_progress(start + decided, len(images)),  # type: ignore[misc]
            )
            if finished is not None and state is not None:
                save_chunk(finished, chunk)
                state.unlink(missing_ok=True)
            yield chunk
        on_progress(start + len(x), len(images))


def _compute_and_chunk_size(
    model: nn.Module,
    images: Split,
    threat: ThreatModel,
    folder: Path | None,
    fingerprint: str,
) -> tuple[AttackCompute, int]:
    """The settings of the attack's computation and the number of images in a chunk. They are
    measured, or read from the folder of an interrupted attack. Raises ConfigError if that attacked
    another model."""
    file = folder / "chunks" / "settled.json" if folder is not None else None
    if file is not None and file.exists():
        saved = read_json(file)
        if saved["fingerprint"] == fingerprint:
            return AttackCompute(**saved["steering"]), int(saved["chunk"])
        raise ConfigError(
            f"{folder} holds an unfinished attack on another model, or by another version; "
            "choose another folder, or delete it"
        )
    device = device_of(model)
    x = images.floats(images.images[: images.piece(512)]).to(device, torch.float32)
    passes = threat.config.eot_samples
    if passes == "auto":
        rows = torch.linspace(0, len(images) - 1, min(32, len(images))).long()
        spread = images.floats(images.images[rows]).to(x)
        passes = 1 if agrees_with_itself(model, spread) <= AGREE else RANDOM_PASSES
    with torch.random.fork_rng(devices=[]):
        compute = autotune_attack(model, x, passes=passes)
    gradients = max([expected_gradients(attack) for attack in (*threat.attempts, *threat.alone)], default=1.0)
    size = int(CHUNK_SECONDS / max(compute.seconds * gradients, 1e-9)) // 32 * 32
    largest = at_most(LARGEST_CHUNK, COPIES * x[0].numel() * FLOAT)
    size = min(max(size, SMALLEST_CHUNK), max(largest, SMALLEST_CHUNK))
    if file is not None:
        write_json(file, {"fingerprint": fingerprint, "steering": compute.as_json(), "chunk": size})
    return compute, size


def _foretell(compute: AttackCompute, threat: ThreatModel, images: int) -> None:
    """Says how long the attacks take if they break no image: each runs once for every halving of the
    radii."""
    rounds = 1 + math.ceil(math.log2(max(1, sum(radius > 0 for radius in threat.radii))))
    gradients = sum(rounds * expected_gradients(attack) for attack in threat.attempts)
    gradients += sum(len(threat.radii) * expected_gradients(attack) for attack in threat.alone)
    what = f"attacking {images:,} images, if none of them is broken,"
    foretell(what, compute.seconds * gradients * images, QUICKER)


def expected_gradients(attack: BoundAttack) -> float:
    """An estimate of the gradients that an attack computes for an image that it does not break. A
    forward pass counts as a third. The estimate comes from the function `cost` beside the attack,
    or else from its options."""
    cost = attack.bound.answer_beside("cost")
    if cost is not None:
        return max(float(cost), 1.0)
    options = attack.bound.all_options
    steps = float(options.get("steps") or 1) * float(options.get("restarts") or 1)
    return max(steps, float(options.get("queries") or 0) / 3, 1.0)
