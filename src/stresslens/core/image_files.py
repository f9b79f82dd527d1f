"""Decoding of image files to pixels, as a viewer shows them.

This module does not import torch, so that a decoding process starts quickly.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from stresslens.core import bit_depth
from stresslens.core.bit_depth import WHITE
from stresslens.core.errors import DataError, first_line
from stresslens.core.image_formats import FORMATS, hidden

Fit = Literal["crop", "pad", "stretch"]

MOST_PIXELS = 178_956_970
"""An image with more pixels is refused as a decompression bomb. It is twice the limit of Pillow's
warning, and half a gigabyte as RGB."""

HEAD = 2**18
"""The orientation of a JPEG (EXIF, XMP) is in the first so many bytes."""

MOST_BYTES = 2**29
"""A larger file is refused."""

GREY = {"1", "L", "LA", "La", "I"}


class Unreadable(Exception):
    """A file cannot be decoded as a complete image; the message is the reason."""


Item = tuple[int, str | bytes | Unreadable]
"""A file's position among all files, and its path, its content, or why it cannot be read."""


class DecodedImage(NamedTuple):
    """A decoded image file. `width` and `height` are as a viewer shows it, before fitting."""

    pixels: NDArray[np.uint8]
    """(C,H,W)."""
    width: int
    height: int
    coloured: bool
    """Whether the file has colours."""
    format: str
    peak: int
    """The largest value of an image of more than 8 bits, before fitting; 0 for others."""
    camera: str = ""
    """Make and model of the camera, as the file's EXIF says; empty without."""


@dataclass(frozen=True)
class Frame:
    """The shape that images are fitted to: 1 or 3 channels, and `size` (height, width).

    With `size` None, an image keeps its size. `white` is the value of white in images of more than 8
    bits. Images of more than `most_pixels` are refused.
    """

    channels: int
    size: tuple[int, int] | None
    fit: Fit = "crop"
    white: int = WHITE
    most_pixels: int = MOST_PIXELS

    @staticmethod
    def of(shape: tuple[int, int, int], fit: Fit, taker: object, white: int = WHITE) -> Frame:
        """The frame for images of `shape` (channels, height, width).

        Raises DataError, with `taker` in the message, unless there are 1 or 3 channels.
        """
        channels, height, width = shape
        if channels not in (1, 3):
            raise DataError(f"{taker} takes images of {channels} channels, which an image file does not have")
        return Frame(channels, (height, width), fit, white)


def read_image(file: str | bytes | Unreadable) -> bytes:
    """A file's bytes, from its path or as given. Raises Unreadable or OSError."""
    if isinstance(file, Unreadable):
        raise file
    if isinstance(file, bytes):
        return file
    facts = os.stat(file)
    if not stat.S_ISREG(facts.st_mode):
        raise Unreadable("not a regular file")
    if facts.st_size > MOST_BYTES:
        raise Unreadable(f"larger than {MOST_BYTES // 2**20} MB")
    with open(file, "rb") as opened:
        return opened.read()


def decode(content: bytes, frame: Frame) -> DecodedImage:
    """Decodes a file's bytes to an image, as a viewer shows it.

    It is rotated as its EXIF says. Transparent parts are put on white. Palettes, CMYK and 16 bits
    become 8-bit grey or RGB; `frame.white` is white in files of 16 bits. Of an animation the first
    image is taken. `crop` cuts the longer side evenly, `pad` adds black, `stretch` does neither.
    Colour profiles are not applied. A large JPEG is decoded at a half, a quarter or an eighth of its
    size, but at least at twice the frame's size. Raises Unreadable if the image is not complete.
    """
    if not content:
        raise Unreadable("the file is empty")
    plain = _plain_jpeg(content, frame)
    return plain if plain is not None else _by_pillow(content, frame)


def _plain_jpeg(content: bytes, frame: Frame) -> DecodedImage | None:
    """Decodes a small grey or RGB JPEG without EXIF or XMP, five times as fast as Pillow.

    The pixels are the same as Pillow's. Returns None if Pillow must decode the file.
    """
    has_metadata = any(content.find(mark, 0, HEAD) >= 0 for mark in (b"Exif\0", b"ns.adobe.com/xap"))
    if not content.startswith(b"\xff\xd8\xff") or has_metadata:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        if (
            space not in ("Gray", "YCbCr")
            or width * height > frame.most_pixels
            or _reduction(width, height, frame) > 1
        ):
            return None
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if space == "Gray" else "RGB", strict=True)
    except ValueError:  # damaged or unusual: Pillow decides
        return None
    channels = pixels.shape[2]
    if channels != frame.channels or frame.size not in (None, (height, width)):
        shown = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        pixels = _as_array(_fitted(_eight_bit(shown, frame), frame))
    return DecodedImage(pixels.transpose(2, 0, 1), width, height, space == "YCbCr", "JPEG", 0)


def _reduction(width: int, height: int, frame: Frame) -> int:
    """The largest factor by which a JPEG may be reduced and still be twice as large as the
    frame."""
    return min(width, height) // (2 * max(frame.size)) if frame.size is not None else 1


def _by_pillow(content: bytes, frame: Frame) -> DecodedImage:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            kind = picture.format or ""
            if width * height > frame.most_pixels:
                bomb = ": taken for a decompression bomb" if frame.most_pixels == MOST_PIXELS else ""
                raise Unreadable(f"{width}×{height} pixels, more than {frame.most_pixels:,}{bomb}")
            if kind == "JPEG" and frame.size is not None:
                picture.draft(None, (2 * max(frame.size), 2 * max(frame.size)))
            picture.load()
            coloured = picture.mode not in GREY and not bit_depth.is_deep_grey(picture)
            peak = bit_depth.peak(picture, content)
            shown: Image.Image = picture
            if frame.white != WHITE and bit_depth.is_deep_colour(picture, content):
                shown = bit_depth.scaled_colours(picture, content, frame.white)
            scaled = shown.size
            camera = _camera(shown)
            with suppress(Exception):  # damaged EXIF: a viewer does not rotate the image
                ImageOps.exif_transpose(shown, in_place=True)
            if (shown.size[0] > shown.size[1]) != (scaled[0] > scaled[1]):
                width, height = height, width
            pixels = _as_array(_fitted(_eight_bit(shown, frame), frame))
    except Unreadable:
        raise
    except UnidentifiedImageError:
        helps = "; it is HEIC: pip install pillow-heif reads it" if _is_heic(content) else ""
        raise Unreadable(
            f"not an image of a known format, or damaged at its beginning ({content[:12]!r}){helps}"
        ) from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MOST_PIXELS:,} pixels: taken for a decompression bomb") from None
    except Exception as error:  # a decoder may raise anything for damaged bytes
        raise Unreadable(first_line(error)) from None
    return DecodedImage(pixels.transpose(2, 0, 1), width, height, coloured, kind, peak, camera)


def _camera(picture: Image.Image) -> str:
    """Make and model in an image's EXIF; empty without."""
    with suppress(Exception):  # damaged EXIF
        found = picture.getexif()
        words = [str(found.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
        return " ".join(filter(None, words))
    return ""


def _is_heic(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def picture(image: Image.Image | str | os.PathLike[str], frame: Frame, name: str) -> DecodedImage:
    """A PIL image, or an image file, as `frame` says. Raises DataError, with its name, for what cannot be
    read as an image."""
    try:
        if isinstance(image, Image.Image):
            return as_shown(image, frame)
        if Path(image).is_dir():
            raise DataError(
                f"{name} is a folder; list its files (as a data set: {{'folder': {{'path': …}}}})"
            )
        return decode(read_image(os.fspath(image)), frame)
    except (Unreadable, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{name} cannot be read as an image: {reason or error}") from None


def as_shown(picture: Image.Image, frame: Frame) -> DecodedImage:
    """An opened PIL image as `decode` gives a file. Raises Unreadable if it is not complete, and for
    grey values of more than 8 bits, whose white is not known."""
    coloured = picture.mode not in GREY
    if bit_depth.is_deep_grey(picture):
        raise Unreadable("it has more than 8 bits, and its white is not known; give floats in [0, 1]")
    try:
        picture.load()
        with suppress(Exception):  # damaged EXIF: a viewer does not rotate the image
            picture = ImageOps.exif_transpose(picture)
        pixels = _as_array(_fitted(_eight_bit(picture, frame), frame))
    except Unreadable:
        raise
    except Exception as error:  # a decoder may raise anything for damaged bytes
        raise Unreadable(first_line(error)) from None
    return DecodedImage(pixels.transpose(2, 0, 1), *picture.size, coloured, picture.format or "", 0)


def _as_array(picture: Image.Image) -> NDArray[np.uint8]:
    """The pixels as (H, W, channels)."""
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _eight_bit(picture: Image.Image, frame: Frame) -> Image.Image:
    """The image in Pillow's mode L (1 channel) or RGB (3 channels)."""
    if bit_depth.is_deep_grey(picture):
        values = np.asarray(picture)
        unknown = picture.mode == "I" and frame.white == WHITE and values.max() <= 255
        if values.min() < 0 or values.max() > WHITE or unknown:
            raise Unreadable(
                f"its values run from {values.min()} to {values.max()}; the value of white is not known"
            )
        picture = Image.fromarray(bit_depth.eight_bits(values, frame.white))
    elif picture.mode == "F":
        raise Unreadable("its pixels are floating-point numbers; the value of white is not known")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    wanted = "L" if frame.channels == 1 else "RGB"
    return picture if picture.mode == wanted else picture.convert(wanted)


def _fitted(picture: Image.Image, frame: Frame) -> Image.Image:
    if frame.size is None:
        return picture
    wanted = (frame.size[1], frame.size[0])
    if picture.size == wanted:
        return picture
    if frame.fit == "stretch":
        return picture.resize(wanted, Image.Resampling.BICUBIC)
    return (ImageOps.pad if frame.fit == "pad" else ImageOps.fit)(picture, wanted, Image.Resampling.BICUBIC)


def files_below(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder, except hidden ones. Links are followed unless they form a loop."""
    facts = os.stat(folder)
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if hidden(entry.name):
                    continue
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file() or entry.is_symlink()
                except OSError:  # a link to itself
                    is_folder, is_file = False, True
                if is_folder:
                    yield from files_below(entry.path, above | {here})
                elif is_file:
                    yield entry
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None


@contextmanager
def quietly() -> Iterator[None]:
    """Suppresses Pillow's warnings about unusual but readable files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def digest(content: bytes | memoryview) -> bytes:
    """A digest of 16 bytes (BLAKE2b)."""
    return hashlib.blake2b(content, digest_size=16).digest()


FACTS = np.dtype(
    [
        ("width", np.int64),
        ("height", np.int64),
        ("bytes", np.int64),
        ("coloured", np.bool_),
        ("peak", np.int64),
        ("format", "U12"),
        ("camera", "U40"),
        ("pixel_digest", "V16"),
        ("file_digest", "V16"),
        ("start", np.int64),
    ]
)
"""Facts about one image: its size as shown, the file's length in bytes, whether it has colours, the
largest value if it has more than 8 bits, its format, its camera, digests of pixels and file, and where its
bytes begin in the cache's file."""


class DecodedFiles(NamedTuple):
    """The result of decoding a group of files."""

    positions: list[int]
    """Positions of the n readable files."""
    facts: NDArray[np.void]
    """(n,) of dtype FACTS."""
    contents: list[bytes]
    """The bytes of the readable files if they are kept, else empty."""
    unreadable: list[tuple[int, str, bytes, bool]]
    """Position, reason and file digest of each unreadable file, and whether the failure is
    permanent."""


def decode_group(files: Sequence[Item], frame: Frame, *, pixels: Path | None) -> DecodedFiles:
    """Decodes files and writes the image with position k to position k of the file `pixels`.

    Without `pixels`, the files' bytes are returned instead. Unreadable files are listed with the
    reason.
    """
    positions, facts, contents, unreadable = [], [], [], []
    with quietly(), pixels.open("r+b") if pixels is not None else nullcontext() as target:
        for position, file in files:
            content = b""
            try:
                content = read_image(file)
                picture = decode(content, frame)
            except (OSError, Unreadable) as error:
                reason = error.strerror if isinstance(error, OSError) else None
                permanent = isinstance(error, Unreadable | FileNotFoundError)
                unreadable.append((position, reason or str(error), digest(content), permanent))
                continue
            image = picture.pixels.tobytes()
            if target is not None:
                target.seek(position * len(image))
                target.write(image)
            else:
                contents.append(content)
            positions.append(position)
            size = (picture.width, picture.height, len(content))
            kind = (picture.coloured, picture.peak, picture.format, picture.camera)
            facts.append((*size, *kind, digest(image), digest(content), 0))
    return DecodedFiles(positions, np.array(facts, FACTS), contents, unreadable)
