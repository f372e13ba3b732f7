import pytest
from filelock import FileLock

from tests.study.small_study import SmallStudy, check_whole, session_directory

OVERRIDES = ("generator={kind: oracle}", "search.total=2", "trial.epochs=2", "sharing.stream=false")


@pytest.fixture(scope="session")
def moved_study(tmp_path_factory: pytest.TempPathFactory, ray_head: str) -> SmallStudy:
    """A finished study of two trials, moved away from where it was run; copy it before you change it.

    The first process of this test session that needs it runs it, the others wait for that.
    """
    session = session_directory(tmp_path_factory)
    former = SmallStudy(session / "former", overrides=OVERRIDES)
    moved = SmallStudy(session / "moved", overrides=OVERRIDES)
    with FileLock(session / "moved.lock"):
        if not moved.results.exists():
            done = former.run(RAY_ADDRESS=ray_head)
            assert done.returncode == 0, done.stdout + done.stderr
            check_whole(former, 2, epochs=2)
            former.results.rename(moved.results)
    return moved
