import re
from pathlib import Path

from tests.cli.test_errors import QUICKSTART, gitdist


def test_ls_names_every_source():
    done = gitdist("data", "ls")
    assert done.returncode == 0, done.stderr
    assert all(source in done.stdout for source in ("digits", "fashion-mnist", "npz"))


def test_stats_shows_class_sizes_groups_and_splits(tmp_path: Path):
    done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    sizes = [int(size) for size in re.findall(r"^\d\s+(\d+)\s+(?:many|medium|few)", done.stdout, re.MULTILINE)]
    assert len(sizes) == 10 and sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (95, 7)
    assert f"training {sum(sizes)}, validation 200, test 600" in done.stdout
