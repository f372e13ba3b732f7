"""``gitdist.Dataset``: a data set from arrays, a folder, a torch data set or a data source of study files."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from numpy.typing import ArrayLike

from gitdist.api.arrays import ArraySplit, read_split, read_torch_split, store_arrays
from gitdist.data.dataset import Dataset as PreparedDataset
from gitdist.data.dataset import prepare
from gitdist.errors import SpecError
from gitdist.input_file import expand_home
from gitdist.spec import DataSpec
from gitdist.spec.file import parse_study
from gitdist.store import Store
from gitdist.study.files.results import open_results


class Dataset:
    """A long-tailed data set: images and labels, and how its splits are made of them.

    ``spec`` is the same as ``data:`` of a study file, so the data set can be studied by ``gitdist.run({"name": ...,
    "data": dataset, ...})`` or by the command line.

    Images are uint8, or floats in 0..1, which become uint8 (times 255, rounded). Grey images are ``[H, W]``, others
    have 1 to 4 channels, ``[H, W, C]`` or ``[C, H, W]``; if the shape allows both, a tensor is read as ``[C, H, W]``,
    an array as ``[H, W, C]``. All images have one size. Labels are integers from 0.

    Validation images are split off the training images (``validation``, ``validation_per_class``), and ``profile``
    makes the class sizes of the rest. Test images stay as they are. Without test images, a share of each class becomes
    the test split; images of a group never lie in two splits.
    """

    def __init__(self, spec: DataSpec | Mapping[str, Any], *, results: str | Path = "results") -> None:
        """Use a data source of study files.

        Args:
            spec: such as ``{"source": "digits", "profile": {"kind": "exponential", "factor": 0.01}}``.
            results: results directory or URI, in whose store the prepared data set is.

        Raises:
            SpecError: a field breaks its rule.
        """
        if not isinstance(spec, DataSpec | Mapping):
            raise SpecError(
                f"gitdist.Dataset: spec must be the fields of a data source, but it is a {type(spec).__name__}; pass "
                "such as {'source': 'digits'}, or call Dataset.from_arrays, .from_folder or .from_torch"
            )
        self.spec = spec if isinstance(spec, DataSpec) else _read_fields(dict(spec))
        self._results = open_results(results)

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        test_images: ArrayLike | None = None,
        test_labels: ArrayLike | None = None,
        *,
        class_names: Sequence[str] | None = None,
        groups: Sequence[str] | Sequence[int] | None = None,
        test_groups: Sequence[str] | Sequence[int] | None = None,
        test_share: float = 0.2,
        results: str | Path = "results",
        **fields: Any,
    ) -> Self:
        """Use arrays or tensors, of which the results keep a copy, named by its content.

        Args:
            images: ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, see the class.
            labels: integers ``[N]``, 0..C-1.
            test_images: ``[M, ...]``; None = a share of each class of the images.
            test_labels: ``[M]``.
            class_names: in the order of the labels; None = 0, 1, ...
            groups: ``[N]``, the group of each image (object, patient, video), within one class; None = each image by
                itself.
            test_groups: ``[M]``.
            test_share: of each class, if there are no test images.
            results: as of the constructor.
            fields: of ``data:`` in a study file, such as ``profile``, ``nuisance``, ``validation`` and ``version``.

        Raises:
            DataError: the arrays are not of that form, or do not agree.
            SpecError: a type, a value or a field breaks its rule.
        """
        train = read_split(images, labels, groups, "images")
        test = None
        if test_images is not None or test_labels is not None:
            test = read_split(test_images, test_labels, test_groups, "test_images")
        return cls._from_splits(train, test, class_names, test_share, results, fields)

    @classmethod
    def from_torch(
        cls,
        train: Any,
        test: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        groups: Sequence[str] | Sequence[int] | None = None,
        test_groups: Sequence[str] | Sequence[int] | None = None,
        test_share: float = 0.2,
        results: str | Path = "results",
        **fields: Any,
    ) -> Self:
        """Use map-style ``torch.utils.data.Dataset`` of (image, label), each read once, as ``from_arrays`` does.

        Images are PIL images in mode L, RGB or RGBA, arrays or tensors, without normalisation or random augmentation.

        Args:
            train: with ``len`` and ``[index]``.
            test: likewise; None = a share of each class of ``train``.
            class_names: in the order of the labels; None = ``train.classes`` if it has them, else 0, 1, ...
            groups: as of ``from_arrays``.
            test_groups: as of ``from_arrays``.
            test_share: as of ``from_arrays``.
            results: as of the constructor.
            fields: as of ``from_arrays``.

        Raises:
            DataError: an item is not of that form.
            SpecError: a type, a value or a field breaks its rule.
        """
        train_split = read_torch_split(train, groups, "train")
        test_split = None if test is None else read_torch_split(test, test_groups, "test")
        names = class_names if class_names is not None else getattr(train, "classes", None)
        return cls._from_splits(train_split, test_split, names, test_share, results, fields)

    @classmethod
    def from_folder(cls, path: str | Path, *, results: str | Path = "results", **fields: Any) -> Self:
        """Use a folder of image files: CLASS/ alone, or train/CLASS/ with val/CLASS/, test/CLASS/ or both.

        Args:
            path: of the folder.
            results: as of the constructor.
            fields: of ``data:`` in a study file, such as ``image_size``, ``profile`` and ``nuisance``.

        Raises:
            SpecError: a field breaks its rule.
        """
        return cls({"source": "images", "path": str(expand_home(path).absolute()), **fields}, results=results)

    @cached_property
    def prepared(self) -> PreparedDataset:
        """The splits, from the store of the results; prepared at first use.

        Raises:
            DataError: the images cannot be read, or a class has too few images.
        """
        return prepare(self.spec, Store(self._results.store, results=self._results.uri))

    def __repr__(self) -> str:
        fields = self.spec.model_dump(mode="json", exclude_defaults=True)
        return f"gitdist.Dataset({fields!r}, results={str(self._results)!r})"

    @classmethod
    def _from_splits(
        cls,
        train: ArraySplit,
        test: ArraySplit | None,
        class_names: Sequence[str] | None,
        test_share: float,
        results: str | Path,
        fields: Mapping[str, Any],
    ) -> Self:
        own = {"source", "path"} & fields.keys()
        if own:
            raise SpecError(f"the images are given, so {' and '.join(sorted(own))} must not be; omit it")
        spec = _read_fields({"source": "npz", **fields})
        folder = store_arrays(open_results(results).store, train, test, class_names, test_share)
        return cls(spec.model_copy(update={"path": str(folder)}), results=results)


def _read_fields(values: dict[str, Any]) -> DataSpec:
    return parse_study({"name": "data", "data": values}, "gitdist.Dataset", stored=False).data
