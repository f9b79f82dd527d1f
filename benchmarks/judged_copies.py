"""How many test images with a copy, by the search, are the same photograph as an image of another split?

    python benchmarks/judged_copies.py DATA FOLDER    # contact sheets of a sample, and pairs.csv
    python benchmarks/judged_copies.py PAIRS.csv      # the shares, from its column `judged`

Each test image that the search names stands beside its most similar copy. They are divided into quarters
by the correlation of their details, and `EACH` of every quarter are drawn with a fixed seed. Judge each:
same (one photograph, perhaps cropped, mirrored, or with another brightness or encoding), near (another
colour or title, or one cannot tell) or different (another photograph). The
numbers are the sums over the quarters; their bounds combine Wilson's (Zou & Donner 2008).
benchmarks/judged_copies.csv has the judgements of docs/results.md.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from stresslens.cli.data import data_value
from stresslens.config.data_sets import loaded_data_set
from stresslens.core.splits import image_names, pooled
from stresslens.evaluation.duplicates import duplicate_pairs
from stresslens.evaluation.near_duplicates import _detail, small_pictures
from stresslens.evaluation.picture_alignment import (
    SIDE,
    aligned,
    derivatives,
    fine,
    inverse,
    moved,
    soft,
    unit,
)
from stresslens.metrics.intervals import wilson

EACH, COLUMNS, PIXELS = 30, 6, 112
JUDGEMENTS = ("same", "near", "different")


def likeness(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) correlations of the details of pictures (P, 1, 32, 32) after alignment, and whether the other
    one is mirrored for it."""
    best = []
    for seen in (other, other.flip(3)):
        _, maps = aligned(derivatives(soft(one), fine), soft(seen))
        pairs = (one, moved(seen, maps, SIDE)), (moved(one, inverse(maps), SIDE), seen)
        found = [
            torch.minimum(
                (unit(fine(soft(a))) * unit(fine(soft(b)))).sum(1), (_detail(a) * _detail(b)).sum(1)
            )
            for a, b in pairs
        ]
        best.append(torch.maximum(*found))
    return torch.maximum(*best), best[1] > best[0]


def drawn(data_text: str, folder: Path) -> None:
    data = loaded_data_set(data_value(data_text), base=Path.cwd())
    whole, names = pooled(data), image_names(data)
    grey = [whole.floats(piece.cpu()).mean(1, keepdim=True) for piece in whole.pieces(1024)]
    small = torch.from_numpy(np.concatenate([small_pictures(x) for x in grey]))[:, None].float() / 255
    first_test = len(whole) - len(data.splits["test"])
    pairs = duplicate_pairs(whole)
    pairs = pairs[(pairs[:, 0] < first_test) & (pairs[:, 1] >= first_test)]
    alike, mirrored = (v.numpy() for v in likeness(small[pairs[:, 1]], small[pairs[:, 0]]))
    order = np.lexsort((-alike, pairs[:, 1]))
    order = order[np.unique(pairs[order, 1], return_index=True)[1]]
    order = order[np.argsort(alike[order], kind="stable")]
    folder.mkdir(parents=True, exist_ok=True)
    random, rows = np.random.default_rng(0), []
    for quarter, members in enumerate(np.array_split(order, 4)):
        chosen = np.sort(random.permutation(members)[:EACH])
        sheet(whole.floats(whole.images[torch.from_numpy(pairs[chosen].flatten())]), mirrored[chosen]).save(
            folder / f"quarter-{quarter}.png"
        )
        for k in chosen:
            other, test = (names[p] for p in pairs[k])
            rows.append([quarter, len(members), test, other, f"{alike[k]:.4f}", int(mirrored[k]), ""])
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([["quarter", "of", "test", "other", "alike", "mirrored", "judged"], *rows])
    print(f"{len(order)} test images; {len(rows)} drawn: {folder}")


def sheet(images: Tensor, mirrored: NDArray[np.bool_]) -> Image.Image:
    """Pairs of images (2 P, C, H, W), the test image on the right, mirrored where it helps."""
    x = F.interpolate(images, (PIXELS, PIXELS), mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    pixels = (255 * x).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    width, height = 2 * PIXELS + 16, PIXELS + 24
    page = Image.new("RGB", (COLUMNS * width, math.ceil(len(mirrored) / COLUMNS) * height), "white")
    for k, flip in enumerate(mirrored):
        left, top = k % COLUMNS * width, k // COLUMNS * height
        one, other = pixels[2 * k], pixels[2 * k + 1]
        page.paste(Image.fromarray(np.ascontiguousarray(one[:, ::-1] if flip else one)), (left, top + 16))
        page.paste(Image.fromarray(other), (left + PIXELS + 4, top + 16))
        ImageDraw.Draw(page).text((left, top), f"{k}{' mirrored' if flip else ''}", fill="black")
    return page


def counted(file: Path) -> None:
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    if wrong := [row["test"] for row in rows if row["judged"] not in JUDGEMENTS]:
        raise SystemExit(f"{file}: judged of {wrong[0]} is none of {', '.join(JUDGEMENTS)}")
    sizes = {row["quarter"]: int(row["of"]) for row in rows}
    print(f"{len(rows)} judged of {sum(sizes.values())} test images")
    for title, meant in (*((each, (each,)) for each in JUDGEMENTS), ("same or near", JUDGEMENTS[:2])):
        total = below = above = 0.0
        for quarter, size in sizes.items():
            judged = [row["judged"] in meant for row in rows if row["quarter"] == quarter]
            share = wilson(sum(judged), len(judged))
            total += size * share.value
            below += (size * (share.value - share.low)) ** 2
            above += (size * (share.high - share.value)) ** 2
        low, high = total - math.sqrt(below), min(sum(sizes.values()), total + math.sqrt(above))
        seen = sum(row["judged"] in meant for row in rows)
        print(f"  {title:13} {seen:3} judged, about {total:.0f} ({low:.0f} to {high:.0f}) of all")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        counted(Path(sys.argv[1]))
    else:
        drawn(sys.argv[1], Path(sys.argv[2]))
