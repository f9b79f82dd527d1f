"""Picture files as a viewer shows them, against pixels written by hand; and every way a file can be
no picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stresslens.core import image_files
from stresslens.core.image_files import Frame, Unreadable, decode, decode_group, files_below, quietly

RGB, GREY = Frame(3, None), Frame(1, None)
CORNERS = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8
)  # red, green; blue, white


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(content: bytes, frame: Frame = RGB) -> np.ndarray:
    with quietly():
        return decode(content, frame).pixels.transpose(1, 2, 0).squeeze()


def test_rgb_as_it_is() -> None:
    picture = decode(encoded(Image.fromarray(CORNERS)), RGB)
    assert picture.pixels.shape == (3, 2, 2)
    assert (picture.width, picture.height, picture.coloured, picture.format) == (2, 2, True, "PNG")
    assert np.array_equal(picture.pixels.transpose(1, 2, 0), CORNERS)


def test_grey_stays_grey_and_becomes_three_equal_channels() -> None:
    values = np.array([[0, 100], [200, 255]], np.uint8)
    content = encoded(Image.fromarray(values))
    assert np.array_equal(shown(content, GREY), values)
    assert np.array_equal(shown(content), np.repeat(values[..., None], 3, 2))
    assert not decode(content, RGB).coloured


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = np.array([[0, 256], [40_000, 65_535]], np.uint16)
    assert np.array_equal(shown(encoded(Image.fromarray(values)), GREY), values >> 8)


def test_one_bit_is_black_and_white() -> None:
    values = np.array([[0, 255], [255, 0]], np.uint8)
    assert np.array_equal(shown(encoded(Image.fromarray(values).convert("1")), GREY), values)


def test_a_palette_is_looked_up_and_its_transparent_entry_lies_on_white() -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    assert np.array_equal(
        shown(encoded(picture))[:, :, :].reshape(-1, 3)[:3], [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    )
    assert np.array_equal(shown(encoded(picture, transparency=3))[1, 1], [255, 255, 255])


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 0), (128, 127)])
def test_transparent_parts_lie_on_white(alpha: int, expected: int) -> None:
    black = np.zeros((2, 2, 4), np.uint8)
    black[..., 3] = alpha
    assert (shown(encoded(Image.fromarray(black))) == expected).all()
    grey = Image.merge("LA", [Image.new("L", (2, 2), 0), Image.new("L", (2, 2), alpha)])
    assert (shown(encoded(grey), GREY) == expected).all()


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.abs(shown(encoded(cyan, "JPEG", quality=100)).astype(int) - [0, 255, 255]).max() <= 4


def test_of_an_animation_the_first_image() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (shown(content) == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_turned_as_the_exif_says(orientation: int, turned: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(Image.fromarray(pixels), exif=exif), RGB)
    assert np.array_equal(picture.pixels.transpose(1, 2, 0), turned(pixels))
    assert (picture.height, picture.width) == turned(pixels).shape[:2]


def halves(width: int, height: int) -> Image.Image:
    """Black on the left, white on the right, with a grey frame around it."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


def test_crop_takes_the_middle_pad_adds_black_stretch_does_neither() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    content = encoded(Image.fromarray(wide))
    crop, pad, stretch = (
        decode(content, Frame(1, (10, 10), fit)).pixels[0] for fit in ("crop", "pad", "stretch")
    )
    assert (crop == 255).all()
    assert (pad[0] == 0).all()
    assert (pad[-1] == 0).all()
    assert pad[5, 5] > 200
    assert stretch[:, 0].max() == 0
    assert (stretch[:, 5] == 255).all()


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_the_frame_is_always_filled(width: int, height: int, size: tuple[int, int]) -> None:
    content = encoded(halves(width, height))
    for fit in ("crop", "pad", "stretch"):
        assert decode(content, Frame(3, size, fit)).pixels.shape == (3, *size)


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture() -> None:
    y, x = np.mgrid[0:800, 0:1200]
    smooth = np.stack([x * 255 // 1200, y * 255 // 800, (x + y) * 255 // 2000], 2).astype(np.uint8)
    content = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    small = decode(content, Frame(3, (32, 48), "stretch"))
    whole = np.asarray(Image.open(io.BytesIO(content)).resize((48, 32), Image.Resampling.BICUBIC))
    assert (small.width, small.height) == (1200, 800)
    assert np.abs(small.pixels.transpose(1, 2, 0).astype(int) - whole).max() <= 3


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    grey=st.booleans(),
    quality=st.integers(5, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    frame=st.sampled_from(
        [
            Frame(1, None),
            Frame(3, None),
            Frame(3, (20, 30)),
            Frame(1, (24, 24), "pad"),
            Frame(3, (16, 16), "stretch"),
        ]
    ),
)
@settings(deadline=None)
def test_the_fast_way_to_decode_a_jpeg_gives_pillows_bits(
    size: tuple[int, int], grey: bool, quality: int, subsampling: int, progressive: bool, frame: Frame
) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert("L" if grey else "RGB")
    content = encoded(picture, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    fast, slow = image_files._plain_jpeg(content, frame), image_files._by_pillow(content, frame)
    if fast is not None:
        assert np.array_equal(fast.pixels, slow.pixels)
        assert fast[1:] == slow[1:]
    assert fast is not None or image_files._reduction(size[1], size[0], frame) > 1


def test_a_picture_is_read_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "really a png.jpg").write_bytes(encoded(Image.fromarray(CORNERS)))
    group = decode_group([(0, str(tmp_path / "really a png.jpg"))], RGB, pixels=None)
    assert group.facts["format"].tolist() == ["PNG"]
    assert not group.unreadable


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def bomb() -> bytes:
    """A PNG whose header promises 60,000 by 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


NASTY: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "text.png": (b"this is no picture at all", "not an image of a known format"),
    "html.jpg": (b"<html><script>alert(1)</script></html>", "not an image of a known format"),
    "truncated.jpg": (encoded(noise(), "JPEG")[:1500], "truncated|broken"),
    "truncated.png": (encoded(noise())[:3000], "truncated|broken|unrecognized|IDAT|EOF"),
    "header-only.png": (encoded(noise())[:33], "damaged at its beginning"),
    "flipped.png": (encoded(noise())[:60] + b"\xff" * 200 + encoded(noise())[260:], "."),
    "bomb.png": (bomb(), "decompression bomb"),
    "float.tif": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point"),
    "postscript.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "not an image of a known format",
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_what_is_no_whole_picture_is_refused_with_its_reason(name: str) -> None:
    content, reason = NASTY[name]
    with quietly(), pytest.raises(Unreadable, match=reason):
        decode(content, Frame(3, (8, 8)))


@given(st.binary(max_size=200), st.integers(0, 3000), st.integers(0, 255))
def test_no_bytes_whatever_give_anything_but_a_picture_or_a_reason(
    junk: bytes, place: int, value: int
) -> None:
    damaged = bytearray(JPEG)
    damaged[place % len(damaged)] = value
    with quietly():
        for content in (junk, bytes(damaged)):
            group = decode_group([(0, content)], Frame(3, (8, 8)), pixels=None)
            assert len(group.positions) + len(group.unreadable) == 1
            assert all(reason for _, reason, *_ in group.unreadable)


JPEG = encoded(noise(), "JPEG")


def test_a_group_writes_each_image_to_its_place_and_names_the_others(tmp_path: Path) -> None:
    target = tmp_path / "pixels"
    target.write_bytes(bytes(3 * 12))
    files: list[image_files.Item] = [
        (2, encoded(Image.fromarray(CORNERS))),
        (0, b""),
        (1, str(tmp_path / "missing.png")),
    ]
    group = decode_group(files, Frame(3, (2, 2)), pixels=target)
    assert group.positions == [2]
    assert [(position, reason) for position, reason, *_ in group.unreadable] == [
        (0, "the file is empty"),
        (1, "No such file or directory"),
    ]
    written = np.frombuffer(target.read_bytes(), np.uint8).reshape(3, 3, 2, 2)
    assert np.array_equal(written[2].transpose(1, 2, 0), CORNERS)
    assert not written[:2].any()


def test_hidden_files_are_passed_over_and_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", ".hidden.png", "a/._2.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "3.png").write_bytes(b"")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert [Path(entry.path).relative_to(tmp_path).as_posix() for entry in files_below(str(tmp_path))] == [
        "a/1.png"
    ]
