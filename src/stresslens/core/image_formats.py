"""Formats of image files: which are read, by which names, and what helps where a file is left out.

This module does not import torch, so that a decoding process starts quickly.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from PIL import (  # importing a plug-in of Pillow registers its format
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    IcoImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

with suppress(ImportError):
    import pillow_heif  # type: ignore[import-not-found, unused-ignore]

    pillow_heif.register_heif_opener()
AVIF = AvifImagePlugin.SUPPORTED
if not AVIF:
    with suppress(ImportError):
        import pillow_avif  # type: ignore[import-not-found, unused-ignore]  # noqa: F401

        AVIF = True

FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "HEIF")
    if name in Image.OPEN
)
"""The formats that are decoded, whatever the file's name is, if Pillow was built with them or has a
plug-in for them. Formats that run programs (EPS) are left out."""

OPTIONAL = tuple(name for name in ("HEIF",) if name in FORMATS)
"""Those of a plug-in that may be installed later."""

HEIC, AVIFS = (".heic", ".heif", ".hif"), (".avif",)
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **{
        ".png": ("PNG",),
        ".webp": ("WEBP",),
        ".gif": ("GIF",),
        ".bmp": ("BMP",),
        ".tga": ("TGA",),
        ".ico": ("ICO",),
    },
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), ("PPM",)),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), ("JPEG2000",)),
    **(dict.fromkeys(AVIFS, ("AVIF",)) if AVIF else {}),
    **(dict.fromkeys(HEIC, ("HEIF",)) if "HEIF" in FORMATS else {}),
}
"""Suffixes of image files that are read, and the formats that they stand for."""

PICTURES = {
    **dict.fromkeys(HEIC, "pip install pillow-heif reads HEIC"),
    **dict.fromkeys(AVIFS, "pip install pillow-avif-plugin reads AVIF"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".pef", ".srw"),
        "convert camera raw files to JPEG or PNG",
    ),
    **dict.fromkeys((".pdf", ".svg", ".eps", ".psd", ".xcf", ".ai"), "convert documents to PNG"),
    **dict.fromkeys((".jxl", ".jxr", ".dcm", ".exr", ".hdr", ".fits"), "convert these images to PNG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "take single images out of videos"),
}
"""Suffixes of pictures of other formats, and what helps."""

SYSTEM = {
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "#recycle"),
    *("@recycle", "@__thumb", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
"""Names in lower case of files and folders that operating systems and network disks leave behind."""


def hidden(name: str) -> bool:
    """Whether a file or a folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_image(name: str) -> bool:
    """Whether a file is an image that is read, by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def left_out(names: Iterable[str]) -> tuple[str, str] | None:
    """What to say of files that are left out because of their names: how many, their types and two
    examples; and what helps with the pictures among them ("" if there are none). None without files."""
    by_suffix: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_suffix[os.path.splitext(name)[1].lower()].append(name)
    if not by_suffix:
        return None
    ranked = sorted(by_suffix.items(), key=lambda item: (item[0] not in PICTURES, -len(item[1]), item[0]))
    kinds = ", ".join(f"{suffix or 'no suffix'} {len(files)}" for suffix, files in ranked[:5])
    firsts = [min(files) for _, files in ranked]
    examples = firsts[:2] if len(firsts) > 1 else sorted(ranked[0][1])[:2]
    said = (
        f"{sum(map(len, by_suffix.values()))} files are not image files by their names and were left out "
        f"({kinds}), for example {' and '.join(examples)}"
    )
    return said, "; ".join(dict.fromkeys(PICTURES[suffix] for suffix, _ in ranked if suffix in PICTURES))


def pictures_among(names: Iterable[str]) -> list[str]:
    """Those files that are pictures of a format that is not read."""
    return [name for name in names if os.path.splitext(name)[1].lower() in PICTURES]
