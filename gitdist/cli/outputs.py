"""Refuses an output file that the command reads, or that it prints to."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gitdist.errors import DataError, SpecError
from gitdist.spec import PretrainedSpec, StudySpec


def check_output(option: str, out: Path, given: Path, spec: StudySpec | None = None) -> None:
    """Refuse an output file that is an input of the command, by whatever name, or its standard output.

    Args:
        option: that names the file.
        out: the file, which may be missing.
        given: the file that the command was given.
        spec: of the study that it was given, if any: the files that it names are inputs too.
    """
    try:
        existing = out.stat()
    except OSError:  # missing, or an error when it is written
        return
    for file in (given, *(_named_files(spec) if spec else ())):
        with suppress(OSError, ValueError):  # it cannot be read, or no path can be like that; reported when it is read
            if os.path.samestat(existing, os.stat(file)):
                raise SpecError(f"{option} must be another file than the inputs, but {out} is {file}; choose another")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # it has no file
            if os.path.samestat(existing, os.fstat(stream.fileno())):
                raise SpecError(f"{option} must be a file, but {out} is what the command prints to; choose another")


def _named_files(spec: StudySpec) -> Iterator[str | Path]:
    from gitdist.data.sources import source_files
    from gitdist.study.resources.weights import distinct_trials

    if isinstance(spec.generator, PretrainedSpec):
        yield Path(spec.generator.path)
    for trial in distinct_trials(spec):
        if isinstance(trial.pretrained, str):
            yield Path(trial.pretrained)
    if spec.data.path is not None:
        with suppress(DataError):  # reported when they are read
            yield from source_files(spec.data)
