"""The user's own folder of images: real files of every kind, written here."""

import contextlib
import os
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from gitdist import bounds
from gitdist.data.sources import load_source, row_names, source_digest
from gitdist.data.sources.base import SourceImages
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from tests.commands import environment, gitdist
from tests.disks import small_disk
from tests.unprivileged import shared_folder, unprivileged
from tests.waiting import until


def pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(file: Path, array: np.ndarray, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)


def write_flat(root: Path, num: int = 10, names: tuple[str, ...] = ("owl", "cat"), channels: int = 3) -> Path:
    for seed, name in enumerate(names):
        for index in range(num):
            save(root / name / f"{index:02d}.png", pixels(100 * seed + index, 16, 16, channels))
    return root


def load(root: Path, **fields: Any) -> SourceImages:
    return load_source(DataSpec(source="images", path=str(root), **fields))


def refused(root: Path, message: str, **fields: Any) -> str:
    with pytest.raises(DataError, match=message) as caught:
        load(root, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_fifth_of_each_class_becomes_test_whatever_is_in_the_files(tmp_path: Path) -> None:
    first = load(write_flat(tmp_path / "first"))
    assert first.class_names == ("cat", "owl")
    assert first.train_labels.tolist() == [0] * 8 + [1] * 8 and first.test_labels.tolist() == [0] * 2 + [1] * 2
    whole = [pixels(100 + index, 16, 16).transpose(2, 0, 1) for index in range(10)]
    test = [
        next(index for index in range(10) if np.array_equal(whole[index], image)) for image in first.test_images[:2]
    ]
    train = [index for index in range(10) if index not in test]
    np.testing.assert_array_equal(first.train_images[:8], [whole[index] for index in train])
    other = write_flat(tmp_path / "other")
    save(other / "owl" / "00.png", pixels(999, 16, 16))
    again = load(other)
    np.testing.assert_array_equal(first.test_images[:2], again.test_images[:2])
    assert len(load(other, test_share=0.95).train_labels) == 4


def test_another_class_moves_no_class_test_images(tmp_path: Path) -> None:
    before = load(write_flat(tmp_path, names=("owl", "cat")))
    after = load(write_flat(tmp_path, names=("owl", "cat", "ant")))
    np.testing.assert_array_equal(before.test_images, after.test_images[2:])


def test_official_splits_are_kept(tmp_path: Path) -> None:
    write_flat(tmp_path / "train", 4)
    write_flat(tmp_path / "test", 2)
    source = load(tmp_path)
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == ([0] * 4 + [1] * 4, [0, 0, 1, 1])
    assert source.notes == ()


def test_three_sizes_become_the_median_one_in_steps_of_8_cut_in_the_middle(tmp_path: Path) -> None:
    write_flat(tmp_path, 3)
    wide, tall = pixels(1, 30, 57), pixels(2, 90, 31)
    for index in range(4):
        save(tmp_path / "owl" / f"wide{index}.png", wide)
        save(tmp_path / "cat" / f"tall{index}.bmp", tall)
    source = load(tmp_path)
    assert source.train_images.shape[1:] == (3, 24, 24)
    assert source.notes[0].startswith("images of 3 sizes, 16x16 in 6 of 14 (width x height) resized to 24x24")
    resized = np.asarray(Image.fromarray(wide).resize((46, 24), Image.Resampling.BILINEAR))[:, 11:35]
    assert any(np.array_equal(resized, image.transpose(1, 2, 0)) for image in source.train_images)
    assert load(tmp_path, image_size=96).train_images.shape[1:] == (3, 96, 96)


@pytest.mark.parametrize(("side", "expected"), [(9, 16), (23, 16), (40, 40), (300, 64)])
def test_the_automatic_size_is_between_16_and_64(tmp_path: Path, side: int, expected: int) -> None:
    for name in ("a", "b"):
        for index in range(3):
            save(tmp_path / name / f"{index}.jpg", pixels(index, side, side + 5))
    assert load(tmp_path).train_images.shape[-1] == expected


def test_one_colour_image_makes_all_of_them_rgb(tmp_path: Path) -> None:
    write_flat(tmp_path, 4, channels=1)
    grey = load(tmp_path)
    assert grey.train_images.shape[1] == 1 and grey.notes[0].startswith("test: ")
    save(tmp_path / "cat" / "colour.webp", pixels(7, 16, 16))
    both = load(tmp_path)
    assert both.train_images.shape[1] == 3 and "grey images made RGB: 8" in both.notes
    assert (both.train_images[-3:] == both.train_images[-3:, :1]).all()


def test_16_bits_palettes_transparency_and_orientation_are_understood(tmp_path: Path) -> None:
    write_flat(tmp_path, 3, channels=1)
    levels = pixels(41, 16, 16, 1).astype(np.uint16)
    save(tmp_path / "cat" / "a16.png", levels * 257)
    Image.fromarray(levels.astype(np.uint8)).convert("P").save(tmp_path / "cat" / "palette.png")
    save(tmp_path / "cat" / "alpha.png", np.dstack([pixels(3, 16, 16, 1), np.zeros((16, 16), np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "cat" / "turned.png", pixels(44, 16, 16, 1), exif=exif)
    source = load(tmp_path)
    assert source.train_images.shape[1:] == (1, 16, 16)
    every = np.concatenate([source.train_images, source.test_images])[:, 0]
    upright = np.rot90(pixels(44, 16, 16, 1), -1)
    for expected in (levels, np.zeros((16, 16)), upright):
        assert any(np.array_equal(expected, image) for image in every)
    assert sum(np.array_equal(levels, image) for image in every) == 2
    assert "images with transparent parts put on black: 1" in source.notes
    assert "images turned upright by their EXIF orientation: 1" in source.notes
    with Image.open(tmp_path / "cat" / "turned.png") as image:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), upright)


def odd_exif() -> bytes:
    """Return tags with a description that is a float, where text belongs, and the orientation 6."""
    description = struct.pack("<HHIf", 0x010E, 11, 1, 1.5)
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + description + orientation + bytes(4)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_only_the_orientation_among_the_exif_tags_matters(tmp_path: Path, suffix: str) -> None:
    write_flat(tmp_path, 3)
    save(tmp_path / "cat" / f"photo.{suffix}", pixels(5, 16, 16), exif=odd_exif())
    source = load(tmp_path)
    with Image.open(tmp_path / "cat" / f"photo.{suffix}") as image:
        upright = np.rot90(np.asarray(image), -1).transpose(2, 0, 1)
    assert any(np.array_equal(upright, image) for image in [*source.train_images, *source.test_images])
    assert "images turned upright by their EXIF orientation: 1" in source.notes


def test_an_invalid_orientation_turns_nothing(tmp_path: Path) -> None:
    write_flat(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 0
    save(tmp_path / "cat" / "photo.png", pixels(5, 16, 16), exif=exif)
    assert not any("turned" in note for note in load(tmp_path).notes)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def disguised(file: Path) -> None:
    Image.fromarray(pixels(0, 4, 4)).save(file, format="GIF")


def mislabelled(file: Path) -> None:
    text = PngInfo()
    text.add_text("transparency", "none")  # where Pillow looks for a colour
    save(file, pixels(0, 16, 16), pnginfo=text)


@pytest.mark.parametrize("damage", [emptied, cut_short, flipped, disguised, mislabelled])
def test_unreadable_images_are_counted_and_the_first_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_flat(tmp_path)
    for name in ("owl/03.png", "owl/01.png", "cat/05.png"):
        damage(tmp_path / name)
    message = refused(tmp_path, r"05.png is not \(.*, and 2 more are not; fix or remove them")
    assert str(tmp_path / "cat") in message
    refused(tmp_path, r"01.png is not \(.*, and 1 more are not", exclude=["cat"])


def test_a_class_of_one_image_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    write_flat(tmp_path)
    save(tmp_path / "rare" / "only.png", pixels(1, 16, 16))
    (tmp_path / "void").mkdir()
    refused(tmp_path, r"at least 3 images .*'rare' has 1, and 1 more have too few; .* data.exclude: \[rare, void\]")
    source = load(tmp_path, exclude=["rare", "void"])
    assert source.class_names == ("cat", "owl")
    assert "left out by data.exclude: rare (images: 1)" in source.notes
    refused(tmp_path, "unknown class 'rar'; did you mean 'rare'", exclude=["rar"])
    (tmp_path / "rare" / "only.png").write_bytes(b"no image")
    assert load(tmp_path, exclude=["rare", "void"]).train_labels.tolist() == source.train_labels.tolist()


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_class_that_is_in_one_split_only_is_refused(tmp_path: Path, split: str, other: str) -> None:
    write_flat(tmp_path / "train", 4)
    write_flat(tmp_path / "test", 2)
    write_flat(tmp_path / split, 4, ("lone",))
    refused(tmp_path, rf"in {tmp_path}/{other} for .*'lone' has 0; .* data.exclude: \[lone\]")
    assert load(tmp_path, exclude=["lone"]).class_names == ("cat", "owl")


@pytest.mark.parametrize("name", ["loose.png", "cat/deeper/a.png", "cat/animation.gif", "cat/scan.TIF"])
def test_an_image_that_lies_in_no_class_or_is_not_read_is_never_dropped(tmp_path: Path, name: str) -> None:
    file = write_flat(tmp_path) / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    refused(tmp_path, f"in CLASS/ of .*{name} is not; convert, move or remove")


def test_images_beside_train_and_test_are_refused(tmp_path: Path) -> None:
    write_flat(tmp_path / "train", 4)
    write_flat(tmp_path / "test", 2)
    write_flat(tmp_path / "extra", 2)
    refused(tmp_path, "in SPLIT/CLASS/ .*extra/cat/00.png and 3 more are not")


def counts(source: SourceImages, spec: DataSpec | None = None) -> tuple[list[int], list[int], list[int]]:
    """Return the training, validation and test images of each class."""
    rows = split_rows(source, spec or DataSpec())
    of_split = (source.train_labels[rows.train], source.train_labels[rows.validation], source.test_labels)
    train, validation, test = (np.bincount(labels, minlength=2).tolist() for labels in of_split)
    return train, validation, test


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": 20, "val": 6, "test": 4}, ([20, 20], [6, 6], [4, 4])),
        ({"train": 20, "valid": 6}, ([16, 16], [6, 6], [4, 4])),
        ({"train": 20, "validation": 6}, ([16, 16], [6, 6], [4, 4])),
        ({"train": 20, "test": 4}, ([16, 16], [4, 4], [4, 4])),
        ({"train": 20}, ([13, 13], [3, 3], [4, 4])),
        ({"train": 1, "val": 1, "test": 1}, ([1, 1], [1, 1], [1, 1])),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_given_splits_are_used_and_only_what_is_missing_is_split_off_training(
    tmp_path: Path, folders: dict[str, int], expected: tuple[list[int], ...]
) -> None:
    for name, num in folders.items():
        write_flat(tmp_path / name, num)
    source = load(tmp_path)
    assert counts(source) == expected
    if source.validation is not None:
        rows = split_rows(source, DataSpec())
        assert rows.validation.tolist() == np.flatnonzero(source.validation).tolist()


def test_rows_of_a_validation_folder_have_the_names_of_its_files(tmp_path: Path) -> None:
    for name, num in (("train", 3), ("val", 2), ("test", 1)):
        write_flat(tmp_path / name, num)
    names = row_names(DataSpec(source="images", path=str(tmp_path)))
    assert names is not None and [name for name in names[0] if "val/" in name] == [
        f"val/{label}/{index:02d}.png" for label in ("cat", "owl") for index in range(2)
    ]
    assert len(names[0]) == 10 and len(names[1]) == 2


def test_a_class_may_be_absent_from_the_validation_folder(tmp_path: Path) -> None:
    write_flat(tmp_path / "train", 5)
    write_flat(tmp_path / "val", 2, ("cat",))
    write_flat(tmp_path / "test", 2)
    source = load(tmp_path)
    assert counts(source) == ([5, 5], [2, 0], [2, 2])
    assert "owl" in split_rows(source, DataSpec()).notes[0]


def write_groups(root: Path, sizes: dict[str, list[int]]) -> Path:
    """Write CLASS/GROUP/*.png, ``sizes`` images each; groups are numbered on over the classes."""
    seed = group = 0
    for label, of_class in sizes.items():
        for size in of_class:
            for index in range(size):
                save(root / label / f"patient{group}" / f"{index:02d}.png", pixels(seed, 16, 16))
                seed += 1
            group += 1
    return root


@pytest.mark.parametrize("rule", ["folder", r"patient\d+", r"/(patient\d+)/"])
def test_groups_of_a_folder_never_lie_in_two_splits(tmp_path: Path, rule: str) -> None:
    write_groups(tmp_path, {"cat": [5, 5, 5, 5, 5, 5], "owl": [3, 1, 4, 1, 5, 9]})
    source = load(tmp_path, group=rule)
    assert source.train_groups is not None and source.test_groups is not None
    assert len(source.group_names) == 12
    rows = split_rows(source, DataSpec())
    of_split = [source.train_groups[rows.train], source.train_groups[rows.validation], source.test_groups]
    names = [{source.group_names[group] for group in groups} for groups in of_split]
    assert all(names) and not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_a_group_rule_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    write_groups(tmp_path, {"cat": [5, 5, 5], "owl": [5, 5, 5]})
    assert "deeper" not in refused(tmp_path, "in CLASS/ .*cat/patient0/00.png")  # nested without a rule
    refused(tmp_path, r"does not match cat/patient0/00.png", group="dog")
    save(tmp_path / "cat" / "loose.png", pixels(1, 16, 16))
    refused(tmp_path, "CLASS/GROUP/, but .*cat/loose.png does not", group="folder")
    (tmp_path / "cat" / "loose.png").unlink()
    (tmp_path / "owl" / "patient3").rename(tmp_path / "owl" / "patient0")
    with pytest.raises(DataError, match="group 'patient0' of .* is in"):
        split_rows(load(tmp_path, group="folder"), DataSpec())
    counts(load(tmp_path, group="^[^/]+/[^/]+"))
    with pytest.raises(ValueError, match="regular expression"):
        DataSpec(source="images", group="(")
    with pytest.raises(ValueError, match="for the source digits"):
        DataSpec(group="folder")


@pytest.mark.slow  # ten seconds of a busy processor
def test_a_rule_that_takes_for_ever_is_told_and_can_be_interrupted(tmp_path: Path) -> None:
    root = write_groups(tmp_path / "data", {"a" * 64: [5, 5], "owl": [5, 5]})
    study = Path(__file__).parents[3] / "studies" / "quickstart.yaml"
    data = f"data={{source: images, path: {root}, group: '(a|aa)+$'}}"
    command = gitdist("data", "stats", study, "--results", tmp_path / "results", "--set", data)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    try:
        until(lambda: "data.group" in (tmp_path / "log").read_text() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130, (tmp_path / "log").read_text()
    finally:
        process.kill()


def test_a_class_of_one_group_gives_no_test_images(tmp_path: Path) -> None:
    write_groups(tmp_path, {"cat": [5, 5, 5], "owl": [5]})
    refused(tmp_path, "at least 2 groups .* 'owl' has 'patient3' only", group="folder")
    assert load(tmp_path, group="folder", exclude=["owl"]).class_names == ("cat",)


def test_other_files_are_counted_and_the_digest_knows_of_them(tmp_path: Path) -> None:
    before = source_digest(DataSpec(source="images", path=str(write_flat(tmp_path))))
    (tmp_path / "README.txt").touch()
    (tmp_path / "cat" / ".DS_Store").touch()
    save(tmp_path / ".trash" / "x.png", pixels(1, 4, 4))
    assert "files not read: 2 hidden, 1 of other kinds" in load(tmp_path).notes
    assert source_digest(DataSpec(source="images", path=str(tmp_path))) != before


def test_size_and_share_are_part_of_the_digest(tmp_path: Path) -> None:
    write_flat(tmp_path)
    specs = [{}, {"image_size": 8}, {"test_share": 0.3}, {"exclude": ["cat"]}]
    digests = [source_digest(DataSpec(source="images", path=str(tmp_path), **fields)) for fields in specs]
    assert len(set(digests)) == 4


def test_the_folder_must_be_given_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.path is missing"):
        load_source(DataSpec(source="images"))
    refused(tmp_path / "absent", "absent is not a folder")
    refused(tmp_path, "a folder for each class, but .* has none")
    refused(write_flat(tmp_path), "has none but those of data.exclude", exclude=["cat", "owl"])


def test_the_remedy_for_a_small_class_is_one_that_yaml_reads_as_meant(tmp_path: Path) -> None:
    write_flat(tmp_path)
    for name in ("007", "no", "1.50", "a, b", "null"):
        save(tmp_path / name / "only.png", pixels(1, 16, 16))
    remedy = refused(tmp_path, "data.exclude: ").rpartition("set data.exclude: ")[2]
    assert load(tmp_path, exclude=yaml.safe_load(remedy)).class_names == ("cat", "owl")
    for index in range(50):
        (tmp_path / f"{index:0200}").mkdir()
    assert len(refused(tmp_path, "leave 55 classes out by data.exclude")) < 1000


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"\x1b[31mred", b"\xe2\x80\xa8"])
def test_a_class_whose_name_cannot_be_printed_is_refused(tmp_path: Path, name: bytes) -> None:
    folder = os.path.join(os.fsencode(write_flat(tmp_path)), name)
    os.mkdir(folder)
    assert refused(tmp_path, "printable UTF-8 text").isprintable()
    assert load(tmp_path, exclude=[os.fsdecode(name)]).class_names == ("cat", "owl")


def test_a_file_may_have_any_name_and_a_message_shows_it_in_one_line(tmp_path: Path) -> None:
    file = os.path.join(os.fsencode(write_flat(tmp_path) / "cat"), b"caf\xe9\n.png")
    save(tmp_path / "other.png", pixels(5, 16, 16))
    (tmp_path / "other.png").rename(os.fsdecode(file))
    assert len(load(tmp_path).train_labels) == 17
    with open(file, "wb"):
        pass
    assert r"caf\udce9\n.png" in refused(tmp_path, "it is empty")


@pytest.mark.timeout(20)
def test_links_that_lead_back_are_refused_and_others_are_followed(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "root")
    write_flat(tmp_path / "elsewhere", 4, ("ant",))
    (root / "ant").symlink_to("../elsewhere/ant")
    (root / "cat" / ".#00.png").symlink_to("the.lock.of.an.editor")
    assert load(root).class_names == ("ant", "cat", "owl")
    (root / "cat" / "owl").symlink_to("../owl")
    (root / "owl" / "cat").symlink_to("../cat")
    for group in (None, "folder"):
        refused(root, "must not lead back .*(cat/owl/cat|owl/cat/owl) does", group=group)


@pytest.mark.parametrize("target", ["absent", "bee", "closed/bee"])
def test_a_class_whose_link_cannot_be_followed_is_not_left_out(target: str) -> None:
    with shared_folder() as folder:
        write_flat(folder / "root")
        write_flat(folder / "closed", names=("bee",)).chmod(0)
        (folder / "root" / "bee").symlink_to(f"../{target}" if "closed" in target else target)
        with unprivileged():
            refused(folder / "root", f"cannot read {folder}/root/bee: ")
        (folder / "closed").chmod(0o700)


def test_a_folder_without_permission_is_not_called_empty() -> None:
    with shared_folder() as folder:
        write_flat(folder)
        (folder / ".private").mkdir(0o300)
        (folder / "cat" / "00.png").chmod(0o200)
        with unprivileged():
            refused(folder, "cannot read .*cat/00.png: Permission denied")
        (folder / "cat" / "00.png").chmod(0o600)
        (folder / "cat").chmod(0o300)
        with unprivileged():
            refused(folder, "cannot read .*cat: Permission denied")
        for name in (".private", "cat"):
            (folder / name).chmod(0o700)


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path) -> None:
    with contextlib.chdir(write_flat(tmp_path) / "cat"):
        for _ in range(1500):
            os.mkdir("a")
            os.chdir("a")
    try:
        assert load(tmp_path).class_names == ("cat", "owl")
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "cat" / "a")], check=True)  # pytest's clean-up recurses


def test_images_that_do_not_fit_into_the_temporary_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_flat(tmp_path / "root")
    monkeypatch.setattr(bounds, "DECODED_BYTES", 0)
    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert load(root).train_images.shape == (16, 3, 16, 16)
        refused(root, f"20 images of 512x512 .* temporary directory, but {disk} does not take 0.0 GB", image_size=512)


def test_images_above_the_bound_are_decoded_into_a_file_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_flat(tmp_path / "root")
    held = load(root)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(bounds, "DECODED_BYTES", held.train_images.nbytes - 1)
    mapped = load(root)
    assert isinstance(mapped.train_images, np.memmap) and not isinstance(held.train_images, np.memmap)
    assert mapped.digest() == held.digest()
    assert not list((tmp_path / "temporary").iterdir())


def test_classes_of_any_source_can_be_left_out() -> None:
    whole, source = load_source(DataSpec()), load_source(DataSpec(exclude=["3", "0"]))
    assert source.class_names == ("1", "2", "4", "5", "6", "7", "8", "9")
    np.testing.assert_array_equal(
        source.test_images[source.test_labels == 2], whole.test_images[whole.test_labels == 4]
    )
    assert len(source.train_labels) == np.isin(whole.train_labels, (0, 3), invert=True).sum()
    assert source.notes[0].startswith("left out by data.exclude: 3 (")
    assert len(split_rows(source, DataSpec()).train)
    with pytest.raises(DataError, match="data.exclude: unknown class 'three'"):
        load_source(DataSpec(exclude=["three"]))


def test_the_folder_fields_are_refused_for_other_sources() -> None:
    with pytest.raises(ValueError, match="image_size applies only to the source images and list"):
        DataSpec(image_size=32)
