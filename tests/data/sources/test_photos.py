"""Every property that a photo can have, and what becomes of it: the table in ``gitdist/data/sources/images.py``."""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gitdist.data.sources import load_source
from gitdist.data.sources.base import SourceImages
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from tests.test_input_file import bind_socket

SIDE = 16
RGB = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = RGB[..., 0]
TRANSPARENT = np.dstack([RGB, np.where(np.arange(SIDE) < 8, 0, 255)[None].repeat(SIDE, 0).astype(np.uint8)])


def encoded(array: np.ndarray, form: str, mode: str | None = None, **options: Any) -> bytes:
    buffer = BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def decoded(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG file of one's own making: Pillow writes no 16-bit colour, and no sizes that are not true."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content) for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def grey(array: np.ndarray) -> np.ndarray:
    return np.stack([array] * 3, -1)


JPEG, WEBP = encoded(RGB, "JPEG"), encoded(RGB, "WEBP", lossless=True)
PALETTE, CMYK = encoded(RGB, "PNG", "P"), encoded(RGB, "JPEG", "CMYK")
RGB_16 = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB.astype(np.uint16) * 256 + 255)
BLACKENED = (TRANSPARENT[..., :3] * (TRANSPARENT[..., 3:] > 0)).astype(np.uint8)
KEYED = np.where(GREY[..., None] == GREY[0, 0], 0, grey(GREY)).astype(np.uint8)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - RGB)]}

# (property, file name, content, the image that is read, what its note says)
READ = [
    ("PNG", "photo.png", encoded(RGB, "PNG"), RGB, None),
    ("JPEG", "photo.jpeg", JPEG, decoded(JPEG), None),
    ("BMP", "photo.bmp", encoded(RGB, "BMP"), RGB, None),
    ("PPM", "photo.ppm", encoded(RGB, "PPM"), RGB, None),
    ("WebP", "photo.webp", WEBP, RGB, None),
    ("upper case", "PHOTO.JPG", JPEG, decoded(JPEG), None),
    ("the suffix of another supported form", "photo.jpg", encoded(RGB, "PNG"), RGB, None),
    ("1 bit", "photo.png", encoded(GREY, "PNG", "1"), decoded(encoded(GREY, "PNG", "1")), "grey images made RGB: 1"),
    ("grey", "photo.png", encoded(GREY, "PNG"), grey(GREY), "grey images made RGB: 1"),
    ("palette", "photo.png", PALETTE, decoded(PALETTE), None),
    ("CMYK", "photo.jpg", CMYK, decoded(CMYK), "CMYK images made RGB: 1"),
    ("16 bits", "photo.png", encoded(GREY.astype(np.uint16) * 256 + 255, "PNG"), grey(GREY), "16 bits per channel"),
    ("16 bits, PGM", "photo.pgm", encoded(GREY.astype(np.uint16) * 256, "PPM"), grey(GREY), "16 bits per channel"),
    ("16 bits, colour", "photo.png", png(SIDE, SIDE, 16, 2, RGB_16), RGB, "16 bits per channel"),
    ("transparent", "photo.png", encoded(TRANSPARENT, "PNG"), BLACKENED, "transparent parts put on black: 1"),
    ("a transparent level", "photo.png", encoded(GREY, "PNG", transparency=int(GREY[0, 0])), KEYED, "put on black"),
    ("EXIF rotation", "photo.png", encoded(RGB, "PNG", exif=exif(6)), np.rot90(RGB, -1), "turned upright"),
    ("animated PNG", "photo.png", encoded(RGB, "PNG", **FRAMES), RGB, "first frame is used: 1"),
    ("animated WebP", "photo.webp", encoded(RGB, "WEBP", lossless=True, **FRAMES), RGB, "first frame is used: 1"),
    ("1 pixel wide", "photo.png", encoded(np.full((40, 1, 3), 77, np.uint8), "PNG"), np.full_like(RGB, 77), "2 sizes"),
    ("twice as large", "photo.png", encoded(RGB.repeat(3, 0).repeat(3, 1), "PNG"), None, "2 sizes"),
]
REFUSED = [
    ("truncated PNG", "photo.png", encoded(RGB, "PNG")[:-200], ""),
    ("truncated JPEG", "photo.jpg", encoded(RGB, "JPEG", quality=95)[:-200], "truncated"),
    ("truncated WebP", "photo.webp", WEBP[:-200], ""),
    ("truncated BMP", "photo.bmp", encoded(RGB, "BMP")[:-200], "truncated"),
    ("truncated PPM", "photo.ppm", encoded(RGB, "PPM")[:-200], "truncated"),
    ("only a header", "photo.jpg", JPEG[:20], ""),
    ("zero bytes", "photo.png", b"", "it is empty"),
    ("a web page", "photo.jpg", b"\n<!DOCTYPE html><html><body>Not found", "it is a web page"),
    ("a git-LFS pointer", "photo.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ("text", "photo.png", b"not an image", "none of PNG, JPEG"),
    ("GIF", "photo.gif", encoded(RGB, "GIF"), "convert, move or remove"),
    ("TIFF", "photo.TIF", encoded(RGB, "TIFF"), "convert, move or remove"),
    ("JPEG by a rare name", "photo.jfif", JPEG, "convert, move or remove"),
    ("GIF by content", "photo.png", encoded(RGB, "GIF"), "it is a GIF image"),
    ("TIFF by content", "photo.jpg", encoded(RGB, "TIFF"), "it is a TIFF image"),
    ("HEIC by content", "photo.jpg", b"\0\0\0\x18ftypheic" + bytes(99), "HEIC or AVIF"),
    ("floating-point", "photo.ppm", b"Pf\n16 16\n-1.0\n" + bytes(4 * SIDE * SIDE), "floating-point"),
    ("a bomb", "photo.png", png(60_000, 60_000, 8, 2, bytes(100)), "pixels"),
    ("a bomb when resized", "photo.png", encoded(np.zeros((1_000_000, 1), np.uint8), "PNG"), "16x16000000"),
    ("no pixels", "photo.png", png(0, 16, 8, 0, b""), ""),
]
NO_FILES: list[tuple[str, Callable[[Path], object]]] = [
    ("a pipe", os.mkfifo),
    ("a socket", bind_socket),
    ("a device", lambda file: file.symlink_to("/dev/zero")),
    ("nowhere", lambda file: file.symlink_to("absent.png")),
    ("symbolic links", lambda file: file.symlink_to(file.name)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes with four plain images each."""
    for name in ("cat", "owl"):
        (tmp_path / name).mkdir()
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def load(folder: Path) -> SourceImages:
    return load_source(DataSpec(source="images", path=str(folder)))


@pytest.mark.parametrize(
    ("name", "content", "expected", "note"), [row[1:] for row in READ], ids=[row[0] for row in READ]
)
def test_a_photo_is_read_and_what_was_changed_is_noted(
    folder: Path, name: str, content: bytes, expected: np.ndarray | None, note: str | None
) -> None:
    before = load(folder).notes
    (folder / "cat" / name).write_bytes(content)
    source = load(folder)
    assert source.train_images.shape[1:] == (3, SIDE, SIDE)
    images = [image.transpose(1, 2, 0) for image in (*source.train_images, *source.test_images)]
    assert expected is None or any(np.array_equal(image, expected) for image in images)
    new = [line for line in source.notes if line not in before]
    assert any(note in line for line in new) if note else not new


@pytest.mark.parametrize(("name", "content", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_photo_is_refused_by_its_name_and_the_reason(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / "cat" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"cat/{name}.*{reason}|{reason}.*cat/{name}") as caught:
        load(folder)
    assert "0x" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("kind", "make"), NO_FILES, ids=[row[0] for row in NO_FILES])
def test_what_is_no_photo_but_named_like_one_is_refused(
    folder: Path, kind: str, make: Callable[[Path], object]
) -> None:
    make(folder / "cat" / "photo.png")
    with pytest.raises(DataError, match=f"cat/photo.png.*{kind}"):
        load(folder)


def test_a_photo_that_changes_while_it_is_read_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, open_image = folder / "cat" / "0.png", Image.open

    def change(stream: Any, **options: Any) -> Image.Image:
        if stream.name == str(file):
            with open(file, "ab") as other:
                other.write(b"more")
        return open_image(stream, **options)

    monkeypatch.setattr(Image, "open", change)
    with pytest.raises(DataError, match="cat/0.png must not change while it is read"):
        load(folder)
