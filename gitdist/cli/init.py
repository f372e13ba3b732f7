"""``gitdist init | schema``: write a first study file for a data set, and describe the fields of study files."""

import json
import math
import os
import re
import shlex
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import typer
from rich.console import Console

from gitdist.cli.console import print_line
from gitdist.data.dataset import prepare
from gitdist.data.sources import load_source
from gitdist.data.sources.base import SourceImages
from gitdist.data.sources.decoding import shorter_sides
from gitdist.data.sources.images import list_classes
from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import DataError, GitdistError, SpecError, StudyError
from gitdist.input_file import expand_home
from gitdist.limits import usable_cpus
from gitdist.networks import fitting_networks
from gitdist.spec import DataSpec, StudySpec, unknown_name
from gitdist.spec.data import PublishedName
from gitdist.spec.file import read_plan
from gitdist.spec.schema import study_file_schema
from gitdist.spec.strict_yaml import load_yaml
from gitdist.spec.study import check_name
from gitdist.store.temporary import temporary_store
from gitdist.study.draft import (
    Machine,
    OwnData,
    PublishedData,
    describe_sizes,
    draft_data,
    draft_study,
    study_name,
    too_small,
    training_sizes,
)
from gitdist.study.duration import measure_duration

_TEMPLATES = files("gitdist") / "templates"
_SCHEMA = Path("~/.cache/gitdist/study.schema.json")
_MOST_READ = 20_000  # images that are read in order to estimate how long the study takes
_MOST_HEADERS = 2000  # images whose size is read
_FEW = 10  # training images of a class


def write_schema(out: Path | None) -> None:
    """Print the JSON schema of a study file, or write it to ``out``."""
    text = json.dumps(study_file_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        write_atomic(out, text.encode())
    except OSError as error:
        raise StudyError(f"{out} cannot be written ({error.strerror}); choose another path with --out") from None


def init_study(what: str, out: Path, name: str | None, console: Console) -> None:
    """Write a first study file that fits a data set, and print how long the study takes and the next commands.

    Args:
        what: a template, a published data set, or a folder of images or arrays.
        out: the file, which must not exist.
        name: of the study; None = the template's, or that of the data.
        console: receives the lines.

    Raises:
        SpecError: ``out`` exists, its folder does not, or there is nothing of that name.
        DataError: the data cannot be read, or no study can be made of it.
    """
    if os.path.lexists(out):
        raise SpecError(f"{out} exists and is not overwritten; choose another file with --out")
    if not out.absolute().parent.is_dir():  # not found only after the data are read and the time is measured
        raise SpecError(f"{out} must be in an existing folder; create {out.parent}, or choose another file with --out")
    if name is not None:
        try:
            check_name(name)
        except ValueError as error:
            raise SpecError(f"--name: {error}, but it is '{name}'") from None
    if what in template_names():
        _write_new(out, _template(what, name))
        print_line(console, f"wrote {out}, the template '{what}'")
    else:
        _init_from_data(what, out, name, console)
    print_line(console, f"run it with: gitdist run {shlex.quote(str(out))}")


def template_names() -> list[str]:
    """Return the names of the study files in the package."""
    return sorted(Path(entry.name).stem for entry in _TEMPLATES.iterdir() if entry.name.endswith(".yaml"))


def _template(template: str, name: str | None) -> str:
    text = (_TEMPLATES / f"{template}.yaml").read_text(encoding="utf-8")
    if name is not None:
        text = re.sub(r"^name: .*$", f"name: {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
    return _schema_line() + text


def _init_from_data(what: str, out: Path, name: str | None, console: Console) -> None:
    data, side = _read_data(what, out)
    machine = Machine(num_cpus=usable_cpus(), num_gpus=torch.cuda.device_count())
    own_name = name or study_name(data.source if isinstance(data, PublishedData) else Path(what).resolve().name)
    text = _schema_line() + draft_study(own_name, data, side, fitting_networks((3, side, side))[0], machine)
    spec = read_plan(load_yaml(text), out.absolute().parent, str(out))
    assert isinstance(spec, StudySpec), "there is no matrix"
    num_images = sum(data.counts.values())
    estimate = (
        f"its time is not estimated for {num_images:,} images; gitdist run {shlex.quote(str(out))} --dry-run does so"
    )
    if isinstance(data, PublishedData) or num_images <= _MOST_READ:
        estimate = _estimate(spec)
    _write_new(out, text)
    print_line(console, f"wrote {out}: {describe_sizes(data, machine)}, {side}x{side} pixels")
    if isinstance(data, OwnData) and (small := too_small(data)):
        print_line(console, f"left out, since they have too few images: {', '.join(small)}")
    if (smallest := min(training_sizes(data, machine))) < _FEW:
        print_line(console, f"the smallest class has {smallest} training images: its figures will be rough")
    print_line(console, estimate)
    print_line(console, f"look at the data with: gitdist data stats {shlex.quote(str(out))} --thumbnails data.png")


def _read_data(what: str, out: Path) -> tuple[OwnData | PublishedData, int]:
    """Return the data and the side of the study's images in pixels."""
    if what in get_args(PublishedName):
        source = load_source(DataSpec.model_validate({"source": what}))
        return PublishedData(source=what, counts=_counts(source)), source.train_images.shape[2]
    folder = expand_home(what)
    if not folder.is_dir():
        if os.sep in what:
            raise DataError(f"no folder {folder}; correct the path")
        known = unknown_name("template, data set or folder", what, [*template_names(), *get_args(PublishedName)])
        raise SpecError(f"{known} Or name a folder of images" if known.endswith("?") else known)
    inside = folder.resolve().is_relative_to(out.absolute().parent.resolve())
    path = os.path.relpath(folder.resolve(), out.absolute().parent.resolve()) if inside else str(folder.resolve())
    if any(folder.glob("train*.npz")):
        source = load_source(DataSpec(source="npz", path=str(folder)))
        return OwnData(source="npz", path=path, counts=_counts(source), given=("test",)), source.train_images.shape[2]
    contents = list_classes(folder)
    if not contents.files:
        raise DataError(f"{folder} must have images in a folder for each class, but its folders have none")
    sides = shorter_sides(contents.files[:: math.ceil(len(contents.files) / _MOST_HEADERS)])
    data = OwnData(source="images", path=path, counts=contents.counts, given=contents.given, sides=sides)
    kept = contents.counts.keys() - too_small(data)
    if len(kept) < 2:
        raise DataError(
            f"{folder} must have at least 2 classes with enough images for training, validation and test, but it has "
            f"{len(kept)}; add images"
        )
    side = draft_data(data, Machine(num_cpus=usable_cpus(), num_gpus=torch.cuda.device_count()))["image_size"][0]
    assert isinstance(side, int), "of images"
    return data, side


def _counts(source: SourceImages) -> dict[str, int]:
    counts = np.bincount(source.train_labels, minlength=len(source.class_names))
    return dict(zip(source.class_names, counts.tolist(), strict=True))


def _estimate(spec: StudySpec) -> str:
    """Return how long a study takes, measured with its data in a store of its own that is then deleted."""
    with temporary_store() as store:
        return measure_duration(spec, prepare(spec.data, store), store).describe()


def _schema_line() -> str:
    """Return the first line of a study file, from which editors know its fields; empty if it cannot be stored."""
    with suppress(OSError, GitdistError):
        file = expand_home(_SCHEMA)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_schema(file)
        return f"# yaml-language-server: $schema={file}\n"
    return ""


def _write_new(out: Path, text: str) -> None:
    try:
        with disk_errors(out), open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StudyError(f"{out} cannot be written ({error.strerror}); choose another file with --out") from None
