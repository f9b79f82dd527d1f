"""A folder of small pictures that say what they are, and what may be made of it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from stresslens.core.data import Data


def picture(label: int, k: int, size: tuple[int, int] = (6, 5)) -> Image.Image:
    """Noise whose first pixel is (label, k, 9)."""
    pixels = np.random.default_rng([label, k]).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[0, 0] = label, k, 9
    return Image.fromarray(pixels)


def fill(
    root: Path, names: tuple[str, ...] = ("cat", "dog", "owl"), n: int = 10, size: tuple[int, int] = (6, 5)
) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for k in range(n):
            picture(label, k, size).save(root / name / f"{k:03d}.png")
    return root


def pixels(data: Data) -> dict[str, np.ndarray]:
    return {name: split.images[:].numpy() for name, split in data.splits.items()}


def zipped(root: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return target


def tarred(root: Path, target: Path, prefix: str = "") -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.add(file, prefix + file.relative_to(root).as_posix())
    return target


def table(root: Path, rows: list[list[str]], name: str = "table.csv") -> str:
    (root / name).write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    return str(root / name)


def nasty(root: Path) -> Path:
    fill(root)
    whole = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "owl" / "text.png").write_text("no picture")
    (root / "owl" / "really a png.jpg").write_bytes(whole)
    (root / "owl" / "notes.txt").write_text("mind the owl")
    (root / "stray.png").write_bytes(whole)
    return root
