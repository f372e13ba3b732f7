import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from gitdist import bounds
from gitdist.data import dataset as dataset_module
from gitdist.data.dataset import Dataset, Split, build_dataset, prepare
from gitdist.data.longtail import class_sizes
from gitdist.data.nuisance import transform
from gitdist.data.sources import load_source
from gitdist.data.sources.base import SourceImages
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store

ZIPF = ProfileSpec(kind="zipf", largest=60, smallest=3)
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def rotated(store: Store) -> Dataset:
    return prepare(DataSpec(nuisance="rotation", profile=ZIPF, version=4), store)


def source_of(counts: list[int], test_counts: list[int] | None = None) -> SourceImages:
    def part(sizes: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
        return np.random.default_rng(1).integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8), labels

    train, test = part(counts), part(test_counts or [2] * len(counts))
    return SourceImages(
        name="small",
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        class_names=tuple(f"class {index}" for index in range(len(counts))),
    )


def test_the_training_split_has_the_class_sizes_of_the_profile_ordered_by_class(rotated: Dataset) -> None:
    source = load_source(DataSpec())
    available = np.bincount(source.train_labels) - np.bincount(rotated.validation.labels)
    expected = class_sizes(ZIPF, available.tolist(), 4)
    assert rotated.class_sizes.tolist() == expected == np.bincount(rotated.train.labels).tolist()
    assert (np.diff(rotated.train.labels) >= 0).all()
    assert rotated.num_classes == len(rotated.class_names) == 10


@pytest.mark.parametrize("name", SPLITS)
def test_clean_images_are_the_official_ones_and_images_their_transformation(rotated: Dataset, name: str) -> None:
    source, split = load_source(DataSpec()), getattr(rotated, name)
    images, labels = (
        (source.test_images, source.test_labels) if name == "test" else (source.train_images, source.train_labels)
    )
    np.testing.assert_array_equal(split.clean, images[split.source])
    np.testing.assert_array_equal(split.labels, labels[split.source])
    rng = numpy_rng(4, f"data/nuisance/{name}")
    np.testing.assert_array_equal(split.images, transform("rotation", images[split.source], rng))
    assert (split.images != split.clean).any(axis=(1, 2, 3)).mean() > 0.95


def test_the_test_split_is_the_official_one_in_order(rotated: Dataset) -> None:
    assert rotated.test.source.tolist() == list(range(600))


def test_repeated_rows_get_a_fresh_transformation_each(tmp_path: Path) -> None:
    profile = ProfileSpec(kind="step", largest=150, factor=1.0)
    source = replace(load_source(DataSpec()), repeats=True)
    build_dataset(source, DataSpec(nuisance="rotation", profile=profile), tmp_path)
    train = Dataset.open(tmp_path).train
    assert len(train.labels) == 1500
    first, again = (train.source[:150] == train.source[0]).nonzero()[0][:2]
    np.testing.assert_array_equal(train.clean[first], train.clean[again])
    assert not np.array_equal(train.images[first], train.images[again])


def test_groups_of_every_split_are_kept(tmp_path: Path, store: Store) -> None:
    source = source_of([40, 40])
    groups = np.array([f"object {label}/{index % 8}" for index, label in enumerate(source.train_labels)])
    np.savez(tmp_path / "train.npz", images=source.train_images[:, 0], labels=source.train_labels, groups=groups)
    np.savez(tmp_path / "test.npz", images=source.test_images[:, 0], labels=source.test_labels)
    spec = DataSpec(source="npz", path=str(tmp_path))
    dataset = prepare(spec, store)
    for split in (dataset.train, dataset.validation):
        assert split.groups is not None
        names = list(dict.fromkeys(groups))
        assert [names[group] for group in split.groups] == groups[split.source].tolist()
    assert dataset.test.groups is None
    ungrouped = prepare(spec.model_copy(update={"group": "none"}), store)
    assert ungrouped.train.groups is None and ungrouped.fingerprint != dataset.fingerprint


def base_of(array: NDArray[Any]) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base


@pytest.mark.parametrize("name", SPLITS)
def test_arrays_are_read_only_views_of_the_mapped_file(rotated: Dataset, name: str) -> None:
    before = pa.total_allocated_bytes()
    split: Split = getattr(Dataset.open(rotated.directory), name)
    assert pa.total_allocated_bytes() == before
    for array in (split.images, split.clean, split.labels, split.source):
        assert not array.flags.writeable and not array.flags.owndata and array.flags.c_contiguous
        assert isinstance(base_of(array), pa.Array)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_without_a_nuisance_clean_and_image_are_one_array(store: Store) -> None:
    train = prepare(DataSpec(), store).train
    assert train.clean is train.images


def test_mean_and_deviation_are_those_of_the_training_images(rotated: Dataset) -> None:
    values = rotated.train.images / 255
    assert rotated.mean == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert rotated.std == pytest.approx(values.std(axis=(0, 2, 3)))


def test_building_again_elsewhere_gives_the_same_bytes(rotated: Dataset, tmp_path: Path) -> None:
    again = prepare(DataSpec(nuisance="rotation", profile=ZIPF, version=4), Store(tmp_path))
    assert again.fingerprint == rotated.fingerprint
    for name in SPLITS:
        file = f"{name}.arrow"
        assert (again.directory / file).read_bytes() == (rotated.directory / file).read_bytes()


@pytest.mark.parametrize("nuisance", ["none", "rotation", "dilation-erosion"])
def test_building_in_chunks_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nuisance: Literal["none", "rotation", "dilation-erosion"]
) -> None:
    spec, source = DataSpec(nuisance=nuisance, profile=ZIPF), load_source(DataSpec())
    for name, chunk_bytes in (("whole", bounds.CHUNK_BYTES), ("chunks", 700)):
        monkeypatch.setattr(bounds, "CHUNK_BYTES", chunk_bytes)
        (tmp_path / name).mkdir()
        build_dataset(source, spec, tmp_path / name)
    whole, chunks = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("whole", "chunks")
    )
    assert whole == chunks and whole.keys() == {f"{split}.arrow" for split in SPLITS}


@pytest.mark.parametrize(
    "changed", [{"version": 5}, {"nuisance": "background"}, {"validation_per_class": 5}, {"profile": {"kind": "none"}}]
)
def test_whatever_changes_the_images_changes_the_fingerprint(
    rotated: Dataset, store: Store, changed: dict[str, Any]
) -> None:
    spec = {"nuisance": "rotation", "profile": ZIPF.model_dump(), "version": 4}
    assert prepare(DataSpec.model_validate(spec | changed), store).fingerprint != rotated.fingerprint


def test_groups_follow_the_spec_and_leave_the_fingerprint_alone(rotated: Dataset, store: Store) -> None:
    spec = {"nuisance": "rotation", "profile": ZIPF.model_dump(), "version": 4, "groups": {"many": 50, "few": 4}}
    other = prepare(DataSpec.model_validate(spec), store)
    assert other.fingerprint == rotated.fingerprint
    np.testing.assert_array_equal(other.groups.many, other.class_sizes > 50)
    assert "50" in other.groups.rule and "thirds" in rotated.groups.rule


def write_npz(folder: Path, level: int) -> None:
    source = source_of([6, 6])
    images = source.train_images[:, 0].copy()
    images[0, 0, 0] = level
    np.savez(folder / "train.npz", images=images, labels=source.train_labels)
    np.savez(folder / "test.npz", images=source.test_images[:, 0], labels=source.test_labels)


def test_changed_source_files_mean_another_data_set(tmp_path: Path, store: Store) -> None:
    spec = DataSpec(source="npz", path=str(tmp_path))
    write_npz(tmp_path, 1)
    first = prepare(spec, store)
    write_npz(tmp_path, 2)
    assert prepare(spec, store).directory != first.directory
    write_npz(tmp_path, 1)
    assert prepare(spec, store).directory == first.directory


def test_preparing_again_builds_and_reads_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path, 3)
    spec = DataSpec(source="npz", path=str(tmp_path))
    first = prepare(spec, store)
    monkeypatch.setattr(dataset_module, "load_source", None)
    monkeypatch.setattr(np, "load", None)
    assert prepare(spec, store).directory == first.directory


def test_constant_images_are_refused(tmp_path: Path, store: Store) -> None:
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, images=np.full((6, 4, 4), 9, np.uint8), labels=np.arange(6) % 2)
    with pytest.raises(DataError, match="must vary"):
        prepare(DataSpec(source="npz", path=str(tmp_path)), store)


def other_metadata(directory: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"label": pa.array([1])})
    with pa.OSFile(str(directory / "train.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def emptied(directory: Path) -> None:
    (directory / "train.arrow").write_bytes(b"")


def cut_short(directory: Path) -> None:
    file = directory / "train.arrow"
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize("damage", [other_metadata, emptied, cut_short, shutil.rmtree])
def test_opening_what_is_no_prepared_data_set_is_one_line(rotated: Dataset, tmp_path: Path, damage: Any) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(rotated.directory, directory)
    damage(directory)
    with pytest.raises(DataError, match="prepare it again") as caught:
        Dataset.open(directory)
    assert "\n" not in str(caught.value)


def test_files_that_change_before_they_are_written_are_refused(tmp_path: Path) -> None:
    labels = np.arange(60) % 3

    def write(seed: int) -> None:
        images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
        for name in ("train", "test"):
            np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)

    class SlowStore(Store):
        def get_or_build(self, kind: str, spec: Any, build: Any) -> Path:
            write(1)
            return super().get_or_build(kind, spec, build)

    write(0)
    spec = DataSpec(source="npz", path=str(tmp_path))
    with pytest.raises(DataError, match="must not change while they are read"):
        prepare(spec, SlowStore(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("*.arrow"))
    assert prepare(spec, Store(tmp_path / "store")).num_classes == 3
