"""Explaining, side by side in one process with the notebook's loop and captum, on weights that this
benchmark trains itself.

    python benchmarks/explain.py             # about two minutes on two cores

Occlusion of ten MNIST test images by squares of 5×5 at every position: one image and position after
the other, as the lab did it; captum at its best number of perturbations at a time; stresslens. Then
six explainers on ten images, without and with their checks. The contestants take turns; medians of
n = 5 are compared, answers too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core import devices
from stresslens.core.attack_base import attacked
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.finished_run import data_of
from stresslens.plugins.explainers.occlusion import occlusion

TURNS = 5
SIZE = 5
SIX = ("occlusion", "saliency", "smooth_grad", "integrated_gradients", "gradcam", "guided")


def notebook(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    last = x.shape[2] - SIZE + 1
    maps = torch.zeros(len(x), last, last)
    with torch.no_grad():
        for k in range(len(x)):
            for row in range(last):
                for column in range(last):
                    covered = x[k : k + 1].clone()
                    covered[:, :, row : row + SIZE, column : column + SIZE] = 0.5
                    maps[k, row, column] = model(covered).softmax(1)[0, y[k]]
    return maps


def of_captum(model: nn.Module, x: Tensor, y: Tensor, at_once: int) -> Tensor:
    from captum.attr import Occlusion

    softmax = nn.Sequential(model, nn.Softmax(1))
    found: Tensor = Occlusion(softmax).attribute(
        x,
        target=y,
        sliding_window_shapes=(x.shape[1], SIZE, SIZE),
        baselines=0.5,
        perturbations_per_eval=at_once,
    )
    return found[:, 0].float()


def median(turns: dict[str, Callable[[], object]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(TURNS):
        for name, work in turns.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    devices.keep_memory()
    with tempfile.TemporaryDirectory() as out:
        run = sl.train(
            "simple_cnn",
            {"mnist": {"validation": 10000}},
            out=out,
            name="bench",
            epochs=1,
            precision="float32",
        )
        model = sl.load(run.folder)
        split = data_of(RunFolder(run.folder)).test
    assert split is not None
    x = split.floats(split.images[:10]).float()
    y = model(x).argmax(1)
    with attacked(model):
        best = min((4, 16, 64, 256), key=lambda k: median({"": lambda k=k: of_captum(model, x, y, k)})[""])
        seconds = median(
            {
                "notebook": lambda: notebook(model, x, y),
                "captum": lambda: of_captum(model, x, y, best),
                "stresslens": lambda: occlusion(model, x, y, None, size=SIZE),
            }
        )
        covered = occlusion(model, x, y, None, size=SIZE, credit="covered").values
        apart = float((covered - of_captum(model, x, y, best)).abs().max())
        loop = notebook(model, x, y)
        inside = occlusion(model, x, y, None, size=SIZE, drop=False).values[:, 2:26, 2:26]
        off = float((inside - loop).abs().max())
    print(f"occlusion, 10 images, {SIZE}×{SIZE}, n = {TURNS}, {torch.get_num_threads()} threads")
    print(
        f"  notebook {seconds['notebook']:.2f} s (576 positions an image), captum {seconds['captum']:.2f} s "
        f"({best} at once, 576)"
    )
    ours = seconds["stresslens"]
    print(
        f"  784: stresslens {ours:.2f} s: {seconds['notebook'] / ours:.1f} and "
        f"{seconds['captum'] / ours:.1f} times as fast"
    )
    print(f"  largest difference from captum's map {apart:.1e}, from the loop's {off:.1e}")
    for check in (False, True):
        began = time.perf_counter()
        for name in SIX:
            sl.explain(model, x, {"gradcam": {"guided": True}} if name == "guided" else name, check=check)
        print(
            f"six explainers, 10 images{', with their checks' if check else ''}: "
            f"{time.perf_counter() - began:.1f} s (n = 1)"
        )
    print(f"explainers: {', '.join(registry.names('explainers'))}")


if __name__ == "__main__":
    main()
