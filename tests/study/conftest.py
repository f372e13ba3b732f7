from pathlib import Path

import optuna
import pytest
from filelock import FileLock

from gitdist.study.files.layout import StudyPaths
from tests.postgresql import postgresql_programs
from tests.study.small_study import SmallStudy, check_whole, session_directory

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    """The small study, run to its end without disturbance; for reading. Its blocks are kept on disk, and it has models.

    The first process of this test session that needs it runs it, the others wait for that.
    """
    session = session_directory(tmp_path_factory)
    study = SmallStudy(session / "undisturbed", overrides=("stream.keep=true", "tracking.models=true"))
    with FileLock(session / "undisturbed.lock"):
        if not (study.directory / "summary.json").exists():
            done = study.run()
            assert done.returncode == 0, done.stdout + done.stderr
            check_whole(study, 3)
    return study


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def ledger_line(request: pytest.FixtureRequest) -> str:
    """A study file's ``ledger`` line, for each kind of storage."""
    return str(request.getfixturevalue("database")) if request.param == "postgresql" else request.param


@pytest.fixture
def teams_ledger(request: pytest.FixtureRequest) -> str:
    """The ``ledger`` line of a PostgreSQL server where one is installed, else ``sqlite``."""
    return str(request.getfixturevalue("database")) if postgresql_programs() else "sqlite"


@pytest.fixture
def ledger_paths(tmp_path: Path) -> StudyPaths:
    """The files of a new study named ``study``."""
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    return paths
