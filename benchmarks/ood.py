"""Out-of-distribution (OOD) detection: the share of images that is marked, by kind of image, and the
detectors by name on each kind.

    python benchmarks/ood.py RUN [PHOTOGRAPHS]

RUN is a finished run (…/seed-0) of digits or mnist; PHOTOGRAPHS is a folder of photographs. Marked
test images are false alarms; the other kinds of images are out of distribution. Prints each share
at the run's stated rate, with Wilson's interval and n; then the AUROC of every detector for each kind,
and its FPR at 95 % TPR, with intervals. The record of the run is not changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from stresslens.core.data import Data, Split
from stresslens.core.format import percent, plain
from stresslens.core.image_files import Frame, decode, files_below, read_image
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Shape
from stresslens.evaluation import ood
from stresslens.evaluation.finished_run import data_of
from stresslens.evaluation.ood_detectors import MOST, score_ood
from stresslens.evaluation.ood_sets import OODSet
from stresslens.evaluation.picture_set import PictureSet
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.metrics.intervals import wilson

MANY = 300


def letters(shape: Shape) -> Tensor:
    """White letters on black, of three sizes, drawn with Pillow's own font."""
    drawn = []
    for size in (20, 24, 28):
        for letter in "ABCDEFGHJKLMNPRTUVWXYabdefhkmnpqrtwxyäöüß":
            picture = Image.new("L", (28, 28))
            ImageDraw.Draw(picture).text((14, 14), letter, 255, ImageFont.load_default(size), anchor="mm")
            drawn.append(np.asarray(picture))
    x = torch.from_numpy(np.stack(drawn)).float()[:, None] / 255
    return F.interpolate(x, shape[1:], mode="bilinear", antialias=True).expand(-1, shape[0], -1, -1)


def photographs(folder: Path, shape: Shape) -> Tensor:
    """About `MANY` images, spread evenly over a folder's sorted files."""
    files = sorted(entry.path for entry in files_below(str(folder)))
    some = files[:: max(1, len(files) // MANY)][:MANY]
    frame = Frame(shape[0], (shape[1], shape[2]))
    return torch.from_numpy(np.stack([decode(read_image(file), frame).pixels for file in some])).float() / 255


def foreign(shape: Shape, random: torch.Generator) -> dict[str, Tensor]:
    grey = torch.linspace(0, 1, MANY)[:, None, None, None].expand(MANY, *shape)
    noise = torch.rand(MANY, *shape, generator=random)
    return {
        "uniform noise": noise,
        "20 % white pixels": (noise < 0.2).float(),
        "one grey all over": grey,
        "letters": letters(shape),
    }


def main() -> None:
    folder = RunFolder(Path(sys.argv[1]))
    model, data = open_model(folder).eval(), data_of(folder)
    fitted = ood.OODDetector.load(folder.likeness)
    assert data.test is not None
    test = data.test.floats(data.test.images[:])
    kinds = {
        "test images (false alarms)": test,
        **foreign(data.shape, torch.Generator().manual_seed(0)),
        "inverted": 1 - test,
    }
    kinds["turned by 90°"] = test.rot90(1, (2, 3))
    if len(sys.argv) > 2:
        kinds["photographs"] = photographs(Path(sys.argv[2]), data.shape)
    print(f"{sys.argv[1]}: stated rate {fitted.rate:.3f}, {len(fitted.calibration)} validation images")
    for name, x in kinds.items():
        marked = ood.ood_p_values(fitted, model, x) <= fitted.rate
        share = wilson(int(marked.sum()), len(x))
        print(
            f"  {name:28} {100 * share.value:5.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}), "
            f"n = {share.n}"
        )
    compare_detectors(folder, model, data, {name: x for name, x in kinds.items() if x is not test})


def compare_detectors(folder: RunFolder, model: nn.Module, data: Data, kinds: dict[str, Tensor]) -> None:
    """Prints a row for each detector and kind of image."""
    labels = {name: torch.zeros(len(x), dtype=torch.int64) for name, x in kinds.items()}
    sets = [
        OODSet(
            name, PictureSet(name, [""] * len(x), len(x), splits=[Split(x[:MOST], labels[name][:MOST], 1.0)])
        )
        for name, x in kinds.items()
    ]
    found = score_ood(folder, model, data, read_record(folder), sets)
    print(f"{found.n} test images, thresholds of {found.validation} validation images")
    for name, each in found.sets.items():
        print(f"  {name} (n = {each.n}): {each.verdict}")
        for detector, scores in each.detectors.items():
            rate = "" if scores.fpr95 is None else f", FPR {percent(scores.fpr95)} %"
            print(f"    {detector:12} AUROC {plain(scores.auroc)}{rate}")


if __name__ == "__main__":
    main()
