"""Robustness of a model: attacks × radii → every image's smallest broken radius → curve, table and traces; resumable."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import stresslens
from stresslens import study
from stresslens.admission import admitted
from stresslens.core.attacking import attacked
from stresslens.core.ball import Ball
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import CLEAN, Curve, Row, Trace
from stresslens.core.positions import shuffled
from stresslens.core.results import FORMAT, read_arrays, read_json, write_atomically, write_json
from stresslens.core.types import Estimate, Finding
from stresslens.metrics.intervals import wilson
from stresslens.search import judge_of, judged
from stresslens.smallest import Chunk, SmallestRadius, save
from stresslens.steering import Steering, steer
from stresslens.threat import Attempt, Threat

RANDOM_PASSES = 20
"""Passes that the verdict and the gradients of a random model are averaged over."""
AGREE = 1e-4
"""How far apart the normalised logits of one image may lie in several passes of a model that counts as deterministic."""
CHUNK_SECONDS = 20.0
"""What the costliest attack may take on a chunk."""
SMALLEST_CHUNK, LARGEST_CHUNK = 32, 1024

Tell = Callable[[int, int], None]
"""How many images are decided, of how many."""


@dataclass(frozen=True)
class Robust:
    """What attacking a model found: arrays with one entry an image, and the facts about them as JSON writes them.

    arrays: index, labels, clean_prediction, clean_confidence, smallest (0 where wrong unattacked, infinite where unbroken), by
    (place in names, -1 unbroken), steps; of the broken ones, rows, adversarials (m, C, H, W), adversarial_prediction,
    adversarial_confidence, size. ladder (attacks alone, radii, C, H, W): the first image as each attack by itself returned it.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]

    @property
    def smallest(self) -> np.ndarray:
        """(n,) the smallest radius asked for at which each image is broken."""
        return self.arrays["smallest"]

    def robust(self, eps: float) -> Estimate:
        """The share of images that nothing broke at any radius up to this, with Wilson's interval."""
        return wilson(int((self.smallest > eps).sum()), len(self.smallest))

    @property
    def findings(self) -> list[Finding]:
        return [Finding.from_json(values) for values in self.facts["findings"]]

    @property
    def curve(self) -> Curve:
        names = tuple(str(name) for name in self.arrays["names"])
        return Curve(
            self.facts["norm"],
            tuple(self.facts["radii"]),
            self.smallest,
            self.arrays["by"],
            names,
            self.facts["asked"],
            self.facts["reported_clean"],
        )

    def table(self, model: str = "model") -> list[Row]:
        """The figures of each attack by itself and of the worst case, as a table that audits read."""
        n, norm = self.facts["n"], self.facts["norm"]
        rows = [Row(model, CLEAN, 0.0, self.facts["clean"]["value"], n, norm)]
        rows += [Row(model, "worst case", each["eps"], each["robust"]["value"], n, norm) for each in self.facts["curve"]]
        for alone in self.facts["alone"]:
            if alone["target"] is None:
                rows += [Row(model, alone["label"], each["eps"], each["accuracy"]["value"], n, norm) for each in alone["rows"]]
        return rows

    @property
    def traces(self) -> list[Trace]:
        return [Trace.from_json(values) for values in self.facts["traces"]]

    def save(self, folder: Path) -> None:
        arrays: dict[str, Any] = dict(self.arrays)
        write_atomically(folder / "result.npz", lambda file: np.savez_compressed(file, **arrays))
        write_json(folder / "result.json", self.facts)

    @staticmethod
    def load(folder: Path) -> Robust:
        """Raises UnreadableRun when its files are missing or damaged."""
        return Robust(read_arrays(folder / "result.npz", f"there is no {folder / 'result.npz'}"), read_json(folder / "result.json"))


def measure(
    model: nn.Module,
    split: Split,
    threat: Threat,
    *,
    home: Path | None = None,
    reported: Callable[[np.ndarray], float | None] = lambda index: None,
    surrogate: nn.Module | None = None,
    threads: int | None = None,
    tell: Tell = lambda decided, total: None,
) -> tuple[Robust, Path | None]:
    """Attacks the model and returns what was found, with its folder below `home` where one is given; finished there, it is read.

    `split` holds the images and their labels; `reported` says what accuracy the model's record has for the images at some places.
    Raises ConfigError and DataError, before any computing, for a model or images that cannot be attacked.
    """
    admitted(model, split)
    if threat.radii and any(_asks(each.bound, "surrogate") for each in (*threat.attempts, *threat.alone)) and surrogate is None:
        raise ConfigError(
            "the attack transfer needs a surrogate: another model for the same images (surrogate=…, or --surrogate RUN)"
        )
    index = _chosen(threat.settings.get("images", "all"), len(split), threat.seed)
    images = split.select(index) if len(index) < len(split) else split
    with attacked(model, seed=threat.seed):
        fingerprint = study.fingerprint(
            [_plain(threat), images.fingerprint, _digest(model), None if surrogate is None else _digest(surrogate)]
        )
        key = f"{threat.norm}-{threat.protocol}-{fingerprint[:8]}"
        folder = home / key if home is not None else None
        if (
            folder is not None
            and (folder / "result.json").is_file()
            and read_json(folder / "result.json")["fingerprint"] == fingerprint
        ):
            return Robust.load(folder), folder
        began = time.perf_counter()
        steering, size = _settled(model, images, threat, folder, fingerprint, threads)
        judge = judge_of(model, passes=steering.passes, seed=threat.seed)
        decided = 0
        search = SmallestRadius(
            model,
            judge,
            threat,
            steering,
            surrogate=surrogate,
            tell=lambda some: tell(min(decided + some, len(images)), len(images)),
        )
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        chunks = []
        with steering.active():
            for start in range(0, len(images), size):
                x = images.floats(images.images[start : start + size]).to(device, torch.float32)
                y, places = images.labels[start : start + size].to(device), index[start : start + size].to(device)
                chunks.append(_chunk(search, x, y, places, folder, start))
                decided = start + len(x)
                tell(decided, len(images))
            arrays = _arrays(chunks, threat, judge)
    seconds = time.perf_counter() - began
    robust = Robust(
        arrays, _facts(arrays, chunks, threat, key, fingerprint, len(index), reported(index.numpy()), steering, seconds)
    )
    if folder is not None:
        robust.save(folder)
        shutil.rmtree(folder / "chunks", ignore_errors=True)
    return robust, folder


def _chunk(search: SmallestRadius, x: Any, y: Any, places: Any, folder: Path | None, start: int) -> Chunk:
    if folder is None:
        return search.of(x, y, places)
    done, state = folder / "chunks" / f"{start:07d}.npz", folder / "chunks" / f"{start:07d}.under-way.npz"
    if done.exists():
        return search.begun(x, y, places, done)
    chunk = search.of(x, y, places, state=state)
    save(done, chunk)
    state.unlink(missing_ok=True)
    return chunk


def _settled(
    model: nn.Module, images: Split, threat: Threat, folder: Path | None, fingerprint: str, threads: int | None
) -> tuple[Steering, int]:
    """How the search runs and how many images a chunk has: as an earlier attempt settled it, else by measuring."""
    file = folder / "chunks" / "settled.json" if folder is not None else None
    if file is not None and file.exists():
        kept = read_json(file)
        if kept["fingerprint"] == fingerprint:
            return Steering(**kept["steering"]), int(kept["chunk"])
    first = next((p for p in model.parameters()), torch.empty(0))
    x = images.floats(images.images[:512]).to(first.device, torch.float32)
    asked = threat.settings.get("passes", "auto")
    passes = (1 if deterministic(model, x[:32]) else RANDOM_PASSES) if asked == "auto" else int(asked)
    with torch.random.fork_rng(devices=[]):
        steering = steer(model, x, passes=passes, threads=threads)
    each = steering.seconds * max([_gradients(a, threat, model, x) for a in (*threat.attempts, *threat.alone)], default=1)
    size = int(CHUNK_SECONDS / max(each, 1e-9)) // 32 * 32
    size = min(max(size, SMALLEST_CHUNK), LARGEST_CHUNK)
    if file is not None:
        write_json(file, {"fingerprint": fingerprint, "steering": steering.as_json(), "chunk": size})
    return steering, size


def deterministic(model: nn.Module, x: Any) -> bool:
    """Whether five passes agree, logits taken relative to their largest size (AutoAttack's check for randomness)."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.no_grad():
        passes = torch.stack([model(x.to(first.dtype)).double() for _ in range(5)])
    return float((passes - passes[0]).abs().max() / passes[0].abs().max().clamp_min(1e-30)) < AGREE


def _gradients(each: Attempt, threat: Threat, model: nn.Module, x: Any) -> float:
    """About how many gradients an attack takes for an image that it does not break; a forward pass counts a third."""
    options = each.bound.options
    targeted = each.bound.function.__name__ == "fab" or options.get("loss") in ("auto", "dlr_targeted", "margin_targeted")
    steps = float(options.get("steps") or 1) * float(options.get("restarts") or 1) * (9 if targeted else 1)
    return max(steps, float(options.get("queries") or 0) / 3, 1.0)


def _chosen(asked: Any, n: int, seed: int) -> torch.Tensor:
    """Places of the images to attack: a random sample in file order, or all."""
    return torch.arange(n) if asked == "all" or asked >= n else shuffled(n, seed, 0)[:asked].sort().values


def _arrays(chunks: Sequence[Chunk], threat: Threat, judge: Any) -> dict[str, np.ndarray]:
    levels = np.array([*(eps for eps in threat.radii if eps > 0), np.inf])

    def joined(of: Callable[[Chunk], Any]) -> np.ndarray:
        return np.concatenate([of(chunk).cpu().numpy() for chunk in chunks])

    wrong = ~joined(lambda c: c.right)
    smallest = np.where(wrong, 0.0, levels[joined(lambda c: c.high)])
    by = joined(lambda c: c.by)
    broken = np.flatnonzero((by >= 0) & ~wrong & np.isfinite(smallest))
    clean = torch.cat([c.clean for c in chunks]).double().softmax(1).cpu()
    x_adv, x = torch.cat([c.x_adv for c in chunks])[broken], torch.cat([c.x for c in chunks])[broken]
    after = judged(judge, x_adv).double().softmax(1).cpu() if len(broken) else torch.zeros(0, clean.shape[1])
    by[wrong | ~np.isfinite(smallest)] = -1
    ladder = chunks[0].ladder
    of_ladder = judged(judge, ladder.flatten(0, 1)).double().softmax(1).cpu() if ladder.numel() else torch.zeros(0, clean.shape[1])
    return {
        "index": joined(lambda c: c.places),
        "labels": joined(lambda c: c.y),
        "clean_prediction": clean.argmax(1).numpy(),
        "clean_confidence": clean.amax(1).numpy().astype(np.float32),
        "smallest": smallest,
        "by": by,
        "names": np.array(threat.names, dtype=np.str_),
        "steps": joined(lambda c: c.steps),
        "rows": broken,
        "adversarials": x_adv.cpu().numpy(),
        "adversarial_prediction": after.argmax(1).numpy() if len(broken) else np.zeros(0, np.int64),
        "adversarial_confidence": after.amax(1).numpy().astype(np.float32) if len(broken) else np.zeros(0, np.float32),
        "ladder": ladder.cpu().numpy(),
        "ladder_prediction": of_ladder.argmax(1).reshape(ladder.shape[:2]).numpy()
        if ladder.numel()
        else np.zeros((0, 0), np.int64),
        "ladder_confidence": of_ladder.amax(1).reshape(ladder.shape[:2]).numpy() if ladder.numel() else np.zeros((0, 0)),
        "size": Ball(threat.norm, 0.0).size(x_adv - x).double().cpu().numpy() if len(broken) else np.zeros(0),
    }


def _facts(
    arrays: Mapping[str, np.ndarray],
    chunks: Sequence[Chunk],
    threat: Threat,
    key: str,
    fingerprint: str,
    asked: int,
    reported: float | None,
    steering: Steering,
    seconds: float,
) -> dict[str, Any]:
    n, smallest = len(arrays["labels"]), arrays["smallest"]
    traces = _merged([trace for chunk in chunks for trace in chunk.traces])
    return {
        "format": FORMAT,
        "version": stresslens.__version__,
        "key": key,
        "fingerprint": fingerprint,
        "norm": threat.norm,
        "radii": list(threat.radii),
        "protocol": threat.protocol,
        "attacks": [_described(each) for each in threat.attempts],
        "split": threat.settings.get("split", "test"),
        "n": n,
        "asked": asked,
        "seed": threat.seed,
        "target": threat.target,
        "aimed": threat.aimed,
        "classes": int(chunks[0].clean.shape[1]),
        "clean": wilson(int((smallest > 0).sum()), n).as_json(),
        "reported_clean": reported,
        "curve": [
            {
                "eps": eps,
                "robust": wilson(int((smallest > eps).sum()), n).as_json(),
                "newly_broken_by": {
                    name: int(count)
                    for place, name in enumerate(threat.names)
                    if (count := ((smallest == eps) & (arrays["by"] == place)).sum())
                },
            }
            for eps in threat.radii
        ],
        "alone": [_alone(place, each, chunks) for place, each in enumerate(threat.alone)],
        "findings": [],
        "audited": False,
        "traces": [trace.as_json() for trace in traces],
        "steering": steering.as_json(),
        "cost": {
            "seconds": seconds,
            "forwards": sum(trace.forwards for trace in traces),
            "gradients": sum(trace.gradients for trace in traces),
            "audit_seconds": 0.0,
        },
        "settings": _plain(threat),
    }


def _alone(place: int, each: Attempt, chunks: Sequence[Chunk]) -> dict[str, Any]:
    rows = []
    for level, eps in enumerate(each.radii):
        ranks = torch.cat([chunk.ranks[place, level] for chunk in chunks])
        valid = torch.cat([chunk.valid[place, level] for chunk in chunks])
        wrong = torch.cat([~chunk.right for chunk in chunks])
        n, classes = len(ranks), chunks[0].clean.shape[1]
        silent = sum(t.silent for chunk in chunks for t in chunk.traces if t.attack == each.label and t.eps == np.float32(eps))
        rows.append(
            {
                "eps": eps,
                "accuracy": wilson(int((ranks == 0).sum()), n).as_json(),
                "top5": wilson(int((ranks < 5).sum()), n).as_json() if classes > 5 else None,
                "valid": wilson(int(((ranks == 0) | (~valid & ~wrong)).sum()), n).as_json(),
                "outside": int((~valid).sum()),
                "silent": silent,
            }
        )
    return {**_described(each), "attack": each.value, "target": each.target, "rows": rows}


def _described(each: Attempt) -> dict[str, Any]:
    name = each.bound.function.__name__
    value = each.value if isinstance(each.value, dict) else {each.value: {}}
    return {"name": name, "label": each.label, "options": dict(next(iter(value.values())) or {})}


def _merged(traces: Sequence[Trace]) -> list[Trace]:
    """The traces of all chunks, one for each attack and radius: counts added up, courses averaged where they are equally long."""
    together: dict[tuple[str, float], Trace] = {}
    for trace in traces:
        known = together.get((trace.attack, trace.eps))
        if known is None:
            together[trace.attack, trace.eps] = replace(trace, course=list(trace.course))
            continue
        left, before = trace.n - trace.broke, known.n - known.broke
        if len(trace.course) == len(known.course) and left + before:
            known.course = [(a * before + b * left) / (left + before) for a, b in zip(known.course, trace.course)]
        elif left > before:
            known.course = list(trace.course)
        counted = (
            "n",
            "broke",
            "outside",
            "unchecked",
            "silent",
            "zero_at_start",
            "zero_on_path",
            "gradients",
            "forwards",
            "seconds",
        )
        for name in counted:
            setattr(known, name, getattr(known, name) + getattr(trace, name))
        known.excess = max(known.excess, trace.excess)
    return list(together.values())


def _plain(threat: Threat) -> dict[str, Any]:
    return {
        **{key: value for key, value in threat.settings.items() if key != "alone"},
        "radii": list(threat.radii),
        "attempts": [[each.label, each.value] for each in threat.attempts],
        "alone": [[each.label, each.value, each.target, list(each.radii)] for each in threat.alone],
    }


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).data)
    return digest.hexdigest()[:16]


def _asks(bound: Any, need: str) -> bool:
    return bool(bound.asks_for("attacks", need)) or any(_asks(o, need) for o in bound.options.values() if hasattr(o, "asks_for"))
