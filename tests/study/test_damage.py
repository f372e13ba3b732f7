"""Files that a crash or a full disk damaged: recovered, or a clear error that names the file; never a wrong result."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from gitdist.study.files.rows import read_rows
from tests.disks import small_disk
from tests.study.small_study import check_whole, stocked, wait_for_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]


def cut(path: Path, part: float = 0.7) -> None:
    """Leave only the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def test_truncated_checkpoints_rows_and_artifacts_are_recovered(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    driver = study.start()
    wait_for_rows(study, "trials/0001", 2)  # trial 0 or the baseline has ended by then
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    begun = [rows.parent for rows in study.directory.rglob("rows.jsonl") if read_rows(rows)]
    assert len(begun) >= 2
    for directory in begun:  # another one may just have been made, and be empty
        cut(max(directory.glob("epoch-*.pt")))
        rows = directory / "rows.jsonl"
        rows.write_bytes(rows.read_bytes()[:-20])  # a torn last line
    for pattern in ("generator/*/generator.safetensors", "dataset/*/*.arrow", "ekld/*/*.npy"):
        found = sorted((study.results / "store").glob(pattern))
        assert found, pattern
        cut(found[0])
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


def test_damaged_results_of_a_finished_study_are_made_again(tmp_path, undisturbed):
    shutil.copytree(undisturbed.results, tmp_path / "results")
    study = replace(undisturbed, results=tmp_path / "results")
    before = json.loads((study.directory / "summary.json").read_text())
    best = study.directory / "trials" / f"{before['best']['number']:04d}"
    tested = json.loads((best / "test.json").read_text())
    cut(study.directory / "summary.json")
    cut(best / "trial.json")
    (best / "test.json").write_text('{"metrics": 5}')
    (study.directory / "baseline" / "test.json").unlink()
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()
    summary = json.loads((study.directory / "summary.json").read_text())
    assert summary["best"] == before["best"] and summary["baseline"] == before["baseline"]
    assert json.loads((best / "test.json").read_text())["metrics"] == tested["metrics"]
    assert json.loads((best / "trial.json").read_text())["classes"]["sizes"]


def test_a_disk_that_fills_up_stops_the_study_with_one_line_and_it_goes_on_when_there_is_space(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    study.directory.mkdir()
    with small_disk(study.directory / "trials", "3m"):  # room for one checkpoint
        done = study.run()
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert str(study.directory / "trials") in line and "No space left" in line and "same command" in line
        assert "RUNNING" not in study.statuses()
        assert "FAIL" not in [trial.state.name for trial in study.trials()]
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()
