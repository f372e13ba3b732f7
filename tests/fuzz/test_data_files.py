"""Damaged data and weight files: each is refused in one line, or read as an independent reader reads it.

An input is a valid small data set or generator with one to three damages. Some change what it holds (axes, types,
names, labels, image modes), the others the bytes of a file or what kind of file it is.
"""

import csv
import gzip
import io
import os
import pickle
import random
import re
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from gitdist.data.dataset import prepare
from gitdist.data.sources import load_source
from gitdist.data.sources.base import SourceImages
from gitdist.data.sources.mnist import IDX_FILES
from gitdist.errors import GitdistError
from gitdist.generator.pretrained import read_pretrained
from gitdist.spec.file import load_study
from gitdist.store import Store
from tests.data.sources.test_cifar import write_cifar_10
from tests.data.sources.test_gtsrb import write_gtsrb
from tests.data.sources.test_mnist import idx
from tests.fuzz.commands import check_command, check_inputs
from tests.generator import published

Files = dict[str, Any]  # by path: the bytes of a file, or a function that makes something else there
Seeds = list[int]
SIDE = 16
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3)
ODD_NAMES = [
    b"caf\xe9",
    b"two\nlines",
    b"\x1b[1m",
    b"n" * 250,
    b"2",
    b"no",
    b" ",
    b"a b",
    "ü猫".encode(),
    b"-x",
    b"$x$",
]
FOREIGN = [
    b"",
    b"<!DOCTYPE html>",
    b"version https://git-lfs.github.com/spec/v1\n",
    b"\0" * 999,
    b"GIF89a",
    b"PK\x03\x04",
]


# Damages of bytes and of files


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    where = rng.randrange(len(content) + 1)
    end = min(len(content), where + rng.choice([1, 4, 40, 4000]))
    match rng.randrange(6):
        case 0:
            return content[:where]
        case 1:
            flipped = bytearray(content)
            for _ in range(rng.choice([1, 1, 8]) if content else 0):
                flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 2:
            return content[:where] + rng.randbytes(end - where) + content[end:]
        case 3:
            return content[:where] + content[end:]
        case 4:
            return content[:end] + content[where:]
        case _:
            return rng.choice(FOREIGN)


def damage_files(files: Files, rng: random.Random) -> None:
    name = rng.choice(sorted(files) or [""])
    if not isinstance(files.get(name), bytes):
        return
    match rng.randrange(12):
        case 0:
            del files[name]
        case 1:
            other = rng.choice(sorted(files))
            files[name], files[other] = files[other], files[name]
        case 2:
            files[name] = rng.choice([os.mkfifo, os.mkdir, link_to_nothing, link_to_itself, link_up, link_to_device])
        case 3:
            folder, _, last = name.rpartition("/")
            files[os.path.join(folder, os.fsdecode(rng.choice(ODD_NAMES)) + last[-4:])] = files[name]
        case _:
            files[name] = damaged_bytes(files[name], rng)


def link_to_nothing(path: str) -> None:
    os.symlink("nothing", path)


def link_to_itself(path: str) -> None:
    os.symlink(os.path.basename(path), path)


def link_up(path: str) -> None:
    os.symlink("..", path)


def link_to_device(path: str) -> None:
    os.symlink("/dev/zero", path)


def write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = os.path.join(folder, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if isinstance(content, bytes):
                with open(path, "wb") as stream:
                    stream.write(content)
            else:
                content(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):  # two damages made the same name
            pass


# Valid data sets whose content may be damaged: each function takes None for a valid one


def rng_array(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def npz_files(rng: random.Random | None) -> Files:
    parts: dict[str, dict[str, Any]] = {}
    for split, count in (("train", 30), ("test", 9)):
        labels = np.arange(count) % 3
        images = rng_array((count, 6, 5, 3), count)
        parts[split] = {"images": images, "labels": labels, "classes": np.array(["cat", "dog", "owl"])}
    if rng:
        damage_arrays(parts[rng.choice(["train", "test"])], rng)
    files = {}
    for split, arrays in parts.items():
        buffer = io.BytesIO()
        (np.savez if rng is None or rng.random() < 0.5 else np.savez_compressed)(buffer, **arrays)
        files[f"{split}.npz"] = buffer.getvalue()
    return files


def damage_arrays(arrays: dict[str, Any], rng: random.Random) -> None:
    images, count = arrays["images"], len(arrays["images"])
    name = rng.choice([*arrays, "images", "labels", "groups"])
    match name:
        case "images":
            axes = rng.sample(range(4), 4)
            kind = rng.choice(["f4", "i8", ">u2", "?", "O", "c8", "S1", "u1"])
            arrays[name] = rng.choice(
                [
                    lambda: images.transpose(axes),
                    lambda: images.astype(kind),
                    lambda: images[..., 0],
                    lambda: images[: rng.randrange(count)],
                    lambda: images[:, :, : rng.randrange(3)],
                    lambda: images.reshape(count, -1),
                    lambda: np.asfortranarray(images),
                    lambda: np.zeros_like(images),
                    lambda: np.uint8(7),
                ]
            )()
        case "labels":
            labels = arrays["labels"]
            kind = rng.choice(["f8", "?", "O", "U3", "u8", "i1", ">i4", "m8[s]"])
            arrays[name] = rng.choice(
                [
                    lambda: labels + rng.choice([-1, 1, 5, 2**40]),
                    lambda: labels.astype(kind),
                    lambda: labels[:, None],
                    lambda: labels[: rng.randrange(count)],
                    lambda: np.zeros_like(labels),
                    lambda: np.eye(3)[labels],
                    lambda: np.full(count, 2**64 - 1, np.uint64),
                ]
            )()
        case "classes":
            odd = os.fsdecode(rng.choice(ODD_NAMES))
            arrays[name] = rng.choice(
                [
                    lambda: np.array(["cat", "cat", "owl"]),
                    lambda: np.array(["cat", "dog", odd.encode("utf-8", "replace").decode()]),
                    lambda: np.array([b"cat", b"dog", rng.choice(ODD_NAMES)]),
                    lambda: np.array(["cat", "dog"]),
                    lambda: np.array([["cat", "dog", "owl"]]),
                    lambda: np.array("cat"),
                    lambda: np.array([0.5, 1, 2]),
                    lambda: np.array([3, 1, 2]),
                    lambda: np.array([None, {}, "owl"], dtype=object),
                ]
            )()
        case _:
            arrays["groups"] = rng.choice(
                [
                    lambda: np.arange(count) // 3 * 3 + np.arange(count) % 3,
                    lambda: np.arange(count + 1),
                    lambda: np.array(["g"] * count),
                    lambda: np.arange(count) / 2,
                    lambda: np.array([str(index // 6) + str(index % 3) for index in range(count)]),
                ]
            )()
    if rng.random() < 0.15:
        arrays[rng.choice(["Images", "x", "arr_0", "images/x"])] = arrays.pop(rng.choice(sorted(arrays)))


def image_bytes(seed: int, rng: random.Random | None = None) -> bytes:
    image = Image.fromarray(rng_array((SIDE, SIDE, 3), seed))
    form, options = "PNG", {}
    if rng:
        form = rng.choice(["PNG", "PNG", "JPEG", "BMP", "PPM", "WEBP", "GIF", "TIFF"])
        image = image.resize((rng.choice([1, 7, 16, 16, 90]), rng.choice([1, 7, 16, 16, 90])))
        mode = rng.choice(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F", "I"])
        image = image.convert("L").convert(mode) if mode in ("LA", "I;16", "F", "I") else image.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = rng.choice([1, 6, 8, 0, 99])
        options = rng.choice([{}, {"exif": exif}, {"save_all": True, "append_images": [image.copy()]}])
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **options)
    except (OSError, ValueError, KeyError, TypeError):  # this form does not have this mode
        return image_bytes(seed)
    return buffer.getvalue()


def image_files(rng: random.Random | None) -> Files:
    files: Files = {f"{name}/{index}.png": image_bytes(index) for name in ("cat", "owl") for index in range(6)}
    if rng:
        suffix = rng.choice(["png", "JPG", "webp", "bmp", "ppm", "gif", "txt", "jfif"])
        folder = rng.choice(["cat", "cat", "cat", ".hidden", "train", "cat/deeper", os.fsdecode(rng.choice(ODD_NAMES))])
        for index in range(rng.choice([1, 1, 4])):
            files[f"{folder}/new{index}.{suffix}"] = image_bytes(index + 50, rng)
    return files


Row = tuple[str, str, str, str]  # path, label, split and group of an image


def listed_images(rng: random.Random | None) -> tuple[Files, list[Row]]:
    """Return images and a row for each, of which a few are damaged."""
    files: Files = {f"{name}/{index}.png": image_bytes(index) for name in ("cat", "owl") for index in range(6)}
    rows = [
        (path, "01"[path.startswith("owl")], "test" if path[4] in "45" else "train", f"{path[:3]}{int(path[4]) // 2}")
        for path in files
    ]
    for _ in range(rng.choice([0, 1, 3]) if rng else 0):
        position = rng.randrange(len(rows))
        path, label, split, group = rows[position]
        odd = os.fsdecode(rng.choice(ODD_NAMES)).encode("utf-8", "replace").decode()
        match rng.randrange(8):
            case 0:
                label = rng.choice(
                    ["2", "-1", "1.0", "cat", "", " ", "9" * 99, "0x1", "\u0661", "1_0", "+1", "00", odd]
                )
            case 1:
                others = ["", ".", "..", "/", "/etc/passwd", "../x", "cat/../cat/0.png", "./cat/0.png", "cat", "~/x"]
                path = rng.choice([*others, "cat//0.png", "CAT/0.png", "cat\\0.png", "x" * 300, odd, f"{odd}/{odd}"])
            case 2:
                files[odd] = files.pop(path) if path in files else b""
                path = odd
            case 3:
                split = rng.choice(["val", "Train", "", "dev", "validation", odd])
            case 4:
                group = rng.choice(["", "cat0", odd])
            case 5:
                rows.insert(rng.randrange(len(rows)), rows[position])
                continue
            case 6:
                rows = [
                    (*row[:1], rng.choice([row[1] + "x", {"0": "a b", "1": "b"}.get(row[1], "c")]), *row[2:])
                    for row in rows
                ]
                continue
            case _:
                files[path] = image_bytes(position + 50, rng)
        rows[position] = (path, label, split, group)
    return files, rows


def list_files(rng: random.Random | None) -> Files:
    files, rows = listed_images(rng)
    mark, end = b"", "\n"
    separators = [" "]
    if rng:
        mark, end = (
            rng.choice([b"", b"", b"\xef\xbb\xbf"]),
            rng.choice(["\n", "\n", "\r\n", "\n\n", "\r", " \n", "\x85"]),
        )
        separators = rng.choice([[" "], ["\t"], ["   "], [" ", "\t"], [","], [" \t "], ["\u00a0"]])
    for name in ("train", "test"):
        lines = [
            f"{path}{(rng or random).choice(separators)}{label}{end}" for path, label, split, _ in rows if split == name
        ]
        files[f"{name}.txt"] = mark + "".join(lines).encode()
    return files


def csv_files(rng: random.Random | None) -> Files:
    files, rows = listed_images(rng)
    header, options, mark = ["image", "label", "split", "group"], {}, b""
    if rng:
        header[rng.randrange(4)] = (
            rng.choice([*header, "", "Image", " label", "file"]) if rng.random() < 0.3 else header[0]
        )
        header[0] = header[0] if rng.random() < 0.1 else "image"
        header = header if rng.random() < 0.3 else ["image", "label", "split", "group"]
        options = {
            "delimiter": rng.choice([",", ",", ";", "\t", "|"]),
            "quoting": rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
            "lineterminator": rng.choice(["\n", "\r\n", "\r", "\n\n"]),
        }
        mark = rng.choice([b"", b"", b"\xef\xbb\xbf"])
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows([header, *rows])
    files["images.csv"] = mark + text.getvalue().encode()
    return files


def idx_files(rng: random.Random | None) -> Files:
    arrays = [rng_array((40, 28, 28)), np.arange(40) % 10, rng_array((10, 28, 28), 1), np.arange(10) % 10]
    contents = [idx(array.astype(np.uint8)) for array in arrays]
    if rng:
        which = rng.randrange(4)
        array = arrays[which].astype(np.uint8)
        contents[which] = rng.choice(
            [
                lambda: idx(array[: rng.randrange(len(array))]),
                lambda: idx(array.reshape(-1)),
                lambda: idx(array.transpose()),
                lambda: idx(array ^ 0x80),
                lambda: contents[which][:2] + bytes([rng.randrange(256)]) + contents[which][3:],
                lambda: contents[which][:3] + bytes([rng.randrange(256)]) + contents[which][4:],
                lambda: contents[which][:4] + struct.pack(">I", rng.choice([0, 9, 2**31])) + contents[which][8:],
            ]
        )()
    packed = [gzip.compress(content) for content in contents]
    if rng and rng.random() < 0.1:
        packed[0] = contents[0]
    return dict(zip(IDX_FILES, packed, strict=True))


@cache
def files_of(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return {
            str(file.relative_to(name)): file.read_bytes() for file in sorted(Path(name).rglob("*")) if file.is_file()
        }


def cifar_files(rng: random.Random | None) -> Files:
    changed: dict[str, Any] = {}
    if rng:
        changed = rng.choice(
            [
                {"data": rng_array((4, 3072)).astype(rng.choice(["f4", "i8", "O"]))},
                {"data": rng_array((rng.choice([0, 3, 5]), 3072))},
                {"data": rng_array((4, 32, 32, 3))},
                {"labels": [1, 2, 3, rng.choice([-1, 10, 2**70, "4", 1.0, None, True])]},
                {"labels": rng.choice([[1, 2], None, 3, "1234"])},
            ]
        )
    with tempfile.TemporaryDirectory() as name:
        write_cifar_10(Path(name), **changed)
        files: Files = {file.name: file.read_bytes() for file in Path(name).iterdir()}
    if rng and rng.random() < 0.2:
        names: list[Any] = [f"name {label}" for label in range(10)]
        names[rng.randrange(10)] = rng.choice(["name 1", "", "two\nlines", 3, None])
        files["batches.meta"] = pickle.dumps({"label_names": names[: rng.choice([3, 10])]}, protocol=2)
    return files


def gtsrb_files(rng: random.Random | None) -> Files:
    files = dict(files_of(write_gtsrb))
    if rng:
        name = rng.choice([name for name in files if name.endswith(".csv")])
        old, new = rng.choice(
            [(b";", b","), (b"0", b"9"), (b"ppm", b"png"), (b"ClassId", b"Class"), (b"0000", b"../0")]
        )
        files[name] = files[name].replace(old, new, rng.choice([1, 99]))
    return files


# Independent readers: images [N, C, H, W] and labels of the training and the test split


def read_npz(folder: Path) -> list[np.ndarray]:
    arrays = []
    for split in ("train", "test"):
        with np.load(folder / f"{split}.npz") as archive:
            images = archive["images"]
            arrays += [np.moveaxis(images, 3, 1) if images.ndim == 4 else images[:, None], archive["labels"]]
    return arrays


def read_idx(folder: Path) -> list[np.ndarray]:
    contents = [gzip.decompress((folder / name).read_bytes()) for name in IDX_FILES]
    arrays = [
        np.frombuffer(content, np.uint8, offset=start) for content, start in zip(contents, (16, 8) * 2, strict=True)
    ]
    return [part.reshape(-1, 1, 28, 28) if index % 2 == 0 else part for index, part in enumerate(arrays)]


def read_cifar(folder: Path) -> list[np.ndarray]:
    names = [[f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]]
    batches = [[pickle.loads((folder / name).read_bytes(), encoding="latin1") for name in part] for part in names]
    return [
        np.concatenate([np.asarray(batch[key]) for batch in part]).reshape((-1, 3, 32, 32) if key == "data" else (-1,))
        for part in batches
        for key in ("data", "labels")
    ]


READERS: dict[str, tuple[Callable[[random.Random | None], Files], Callable[[Path], list[np.ndarray]] | None]] = {
    "npz": (npz_files, read_npz),
    "images": (image_files, None),
    "list": (list_files, None),
    "csv": (csv_files, None),
    "fashion-mnist": (idx_files, read_idx),
    "cifar-10": (cifar_files, read_cifar),
    "gtsrb": (gtsrb_files, None),
}


FIELDS = {  # of a study file, besides source and path
    "list": {"train": "data/train.txt", "test": "data/test.txt"},
    "csv": {"table": "data/images.csv", "columns": {"split": "split", "group": "group"}},
}


def make_files(make: Callable[[random.Random | None], Files], seeds: Seeds) -> Files:
    """Return a data set with one damage per seed; the first may concern what it holds."""
    first = random.Random(seeds[0])
    files = make(first if first.random() < 0.6 else None)
    for seed in seeds if len(seeds) == 1 and seeds[0] % 2 else seeds[1:]:
        damage_files(files, random.Random(seed))
    return files


def check_data(source: str, seeds: Seeds) -> None:
    make, read = READERS[source]
    with tempfile.TemporaryDirectory(prefix="gitdist-fuzz-") as name:
        folder, results = Path(name) / "data", Path(name) / "results"
        write_files(folder, make_files(make, seeds))
        study = Path(name) / "study.yaml"
        data = {"source": source, "path": "data", **FIELDS.get(source, {})}
        study.write_text(yaml.safe_dump({"name": "fuzz", "data": data}))
        if check_command("data", "stats", study, "--results", results).code:
            return
        spec = load_study(study).data
        images = load_source(spec)
        check_images(images)
        dataset = prepare(spec, Store(results / "store"))
        assert dataset.class_sizes.min() >= 1 and np.isfinite([*dataset.mean, *dataset.std]).all()
        if read:
            own = [images.train_images, images.train_labels, images.test_images, images.test_labels]
            for expected, found in zip(read(folder), own, strict=True):
                np.testing.assert_array_equal(found, expected)
        elif source == "images":
            check_pixels(folder, images)
        elif source in ("list", "csv"):
            check_listed(folder, images, read_list(folder) if source == "list" else read_table(folder))


def check_images(images: SourceImages) -> None:
    for part, labels in ((images.train_images, images.train_labels), (images.test_images, images.test_labels)):
        assert part.dtype == np.uint8 and part.ndim == 4 and part.shape[1] in (1, 2, 3, 4) and len(part) == len(labels)
        assert part.shape[1:] == images.train_images.shape[1:]
        assert set(labels.tolist()) == set(range(len(images.class_names)))
    assert len(set(images.class_names)) == len(images.class_names)
    assert all(name.encode() and "\n" not in name for name in images.class_names)


def check_pixels(folder: Path, images: SourceImages) -> None:
    """Compare the images that need no change with a plain reading of their files, whatever their order."""
    found = {image.tobytes() for image in (*images.train_images, *images.test_images)}
    mode = "RGB" if images.train_images.shape[1] == 3 else "L"
    for file in (file for name in images.class_names for file in (folder / name).iterdir()):
        if file.is_file() and file.suffix.lower() in (".png", ".jpg", ".bmp", ".ppm", ".webp"):
            with Image.open(file) as image:
                plain = image.size == images.train_images.shape[2:] and image.mode in ("L", "RGB", "CMYK", "1", "P")
                if plain and not image.has_transparency_data and image.getexif().get(0x0112, 1) not in range(2, 9):
                    array = np.atleast_3d(np.asarray(image.convert(mode))).transpose(2, 0, 1)
                    assert array.tobytes() in found, file


def read_list(folder: Path) -> list[Row]:
    """Return what each line says, read with a regular expression."""
    rows = []
    for split in ("train", "test"):
        for line in (folder / f"{split}.txt").read_bytes().decode("utf-8-sig").split("\n"):
            found = re.fullmatch(
                r"[ \t\r]*(.*?)[ \t]*\t[ \r]*([^\t]*?)[ \t\r]*|[ \t\r]*(.*?) +([^ \t]*?)[ \r]*", line, re.DOTALL
            )
            if line.strip(" \t\r"):
                assert found, line
                path, label = (part for part in found.groups() if part is not None)
                rows.append((path, label, split, ""))
    return rows


def read_table(folder: Path) -> list[Row]:
    text = (folder / "images.csv").read_bytes().decode("utf-8-sig")
    delimiter = max(",;\t", key=text.lstrip("\r\n").partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [{str(name).strip(): value for name, value in row.items()} for row in reader]
    return [(row["image"].strip(), row["label"].strip(), row["split"].strip().lower(), row["group"]) for row in rows]


def check_listed(folder: Path, images: SourceImages, rows: list[Row]) -> None:
    """Compare labels and the images that need no change with a plain reading of the rows."""
    rows = [
        (path, label, "validation" if split.startswith("val") else split, group) for path, label, split, group in rows
    ]
    labels = [label for _, label, *_ in rows]
    if all(re.fullmatch("-?[0-9]+", label) for label in labels):
        labels = [str(int(label)) for label in labels]
    else:
        assert list(images.class_names) == sorted(set(labels))
    found = {
        (images.class_names[label], image.tobytes())
        for part, numbers in ((images.train_images, images.train_labels), (images.test_images, images.test_labels))
        for image, label in zip(part, numbers, strict=True)
    }
    assert len(images.train_labels) + len(images.test_labels) == len(rows)
    if "test" in {split for *_, split, _ in rows}:
        assert len(images.test_labels) == sum(split == "test" for *_, split, _ in rows)
    mode = "RGB" if images.train_images.shape[1] == 3 else "L"
    for (path, *_), label in zip(rows, labels, strict=True):
        with Image.open(folder / path) as image:
            if image.mode in ("L", "RGB") and image.size == images.train_images.shape[2:] and not image.getexif():
                pixels = np.atleast_3d(np.asarray(image.convert(mode))).transpose(2, 0, 1)
                assert (label, pixels.tobytes()) in found, path


def test_damaged_arrays() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("npz", seeds), number=30)


def test_damaged_folders_of_images() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("images", seeds), number=20)


def test_damaged_lists() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("list", seeds), number=30)


def test_damaged_tables_of_images() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("csv", seeds), number=30)


def test_damaged_idx_files() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("fashion-mnist", seeds), number=15)


def test_damaged_batches() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("cifar-10", seeds), number=15)


def test_damaged_tables() -> None:
    check_inputs(SEEDS, lambda seeds: check_data("gtsrb", seeds), number=4)


# Weights


def weights_files(rng: random.Random | None) -> Files:
    state: dict[Any, Any] = published.random_state(0, channels=1, dim=4, depth=2, num_res=2, mlp_dim=6, style_dim=3)
    content: Any = {"a": state, "b": {}}
    if rng:
        name = rng.choice(sorted(state))
        weight = state[name]
        choices: list[Callable[[], Any]] = [
            lambda: state.pop(name),
            lambda: state.update({rng.choice(["x", 3, f"module.{name}", "a\nb"]): weight}),
            lambda: state.update({name: rng.choice([None, 1.0, [weight], weight.numpy().tolist()])}),
            lambda: state.update(
                {name: weight.to(rng.choice([torch.float64, torch.int8, torch.bool, torch.bfloat16]))}
            ),
            lambda: state.update({name: weight * rng.choice([float("nan"), float("inf"), 1e38])}),
            lambda: state.update({name: weight.flatten()}),
            lambda: state.update({name: weight[:0]}),
            lambda: state.update({name: weight.mT if weight.ndim > 1 else weight}),
            lambda: state.update({name: torch.zeros((1,) * weight.ndim).expand(2**33, *weight.shape[1:])}),
            lambda: content.update(a=rng.choice([[state], None, {"a": state}, torch.zeros(3)])),
        ]
        rng.choice(choices)()
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=rng is None or rng.random() < 0.7)
    return {"gen.pt": buffer.getvalue()}


def check_import(seeds: Seeds) -> None:
    with tempfile.TemporaryDirectory(prefix="gitdist-fuzz-") as name:
        file, out = Path(name) / "gen.pt", Path(name) / "out.safetensors"
        write_files(Path(name), make_files(weights_files, seeds))
        if check_command("generator", "import", file, "--out", out).code:
            assert not out.exists()
            return
        content = torch.load(file, weights_only=True)
        expected = content.get("a", content)
        weights = safetensors.torch.load_file(out)
        assert all(weight.isfinite().all() for weight in weights.values())
        written = {values(weight) for weight in weights.values()}
        assert {values(weight) for key, weight in expected.items() if "running_" not in key} <= written


def values(weight: torch.Tensor) -> bytes:
    return weight.float().contiguous().numpy().tobytes()


def test_damaged_checkpoints() -> None:
    check_inputs(SEEDS, check_import, number=15)


@cache
def imported() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), weights_files(None))
        check_command("generator", "import", f"{name}/gen.pt", "--out", f"{name}/out.safetensors")
        return (Path(name) / "out.safetensors").read_bytes()


def check_imported(seeds: Seeds) -> None:
    files: Files = {"generator.safetensors": imported()}
    for seed in seeds:
        damage_files(files, random.Random(seed))
    with tempfile.TemporaryDirectory(prefix="gitdist-fuzz-") as name:
        write_files(Path(name), files)
        try:
            architecture, weights = read_pretrained(Path(name) / "generator.safetensors", (1, 28, 28))
        except GitdistError as error:
            assert str(error).isprintable()
            return
        whole = safetensors.torch.load(imported())
        assert weights.keys() == whole.keys() and all(torch.equal(weights[key], whole[key]) for key in whole)
        assert architecture.auto_encoder().load_state_dict(weights)


def test_damaged_imported_generators() -> None:
    check_inputs(SEEDS, check_imported, number=40)
