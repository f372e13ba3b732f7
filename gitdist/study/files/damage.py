"""Finds the damaged files of a study that follow a schema or a format."""

from collections.abc import Iterator
from pathlib import Path

from gitdist.errors import DamagedFileError
from gitdist.study.files.json_files import Description, JsonFile, ResultOnTest, Summary, Usage, check_json
from gitdist.study.files.layout import BASELINE, StudyPaths
from gitdist.study.files.samples import read_samples


def find_damage(paths: StudyPaths) -> Iterator[DamagedFileError]:
    """Yield an error for each JSON file and picture with other content than it must have."""
    trials = [BASELINE, *paths.stored_trials()]
    files: list[tuple[Path, type[JsonFile]]] = [
        (paths.summary, Summary),
        *((file, Usage) for file in sorted(paths.usage.glob("*.json"))),
        *((paths.description(trial), Description) for trial in trials),
        *((paths.test(trial), ResultOnTest) for trial in trials),
    ]
    for file, schema in files:
        try:
            if check_json(file, schema) is None and file.exists():
                yield DamagedFileError(file, "is not a whole JSON object", is_derived=schema is not Usage)
        except DamagedFileError as error:
            yield error
    if paths.samples.exists() and read_samples(paths) is None:
        yield DamagedFileError(paths.samples, "is not a whole picture")
