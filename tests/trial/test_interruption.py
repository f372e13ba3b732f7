"""After any interruption, training on a processor ends with the bits of an undisturbed one."""

import random
import signal
from pathlib import Path

import pytest

from gitdist.errors import DiskError
from gitdist.trial.checkpoint import completed_rows, load_checkpoint
from gitdist.trial.training import train
from tests.disks import fill, small_disk
from tests.processes import forkserver
from tests.trial import trainee
from tests.trial.toys import assert_same_state, setting_of, short_spec, timeless, whole

PROCESSES = forkserver("tests.trial.trainee")


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """The timeless rows and the last checkpoint of an undisturbed training, and its directory."""
    directory = tmp_path_factory.mktemp("undisturbed")
    return *whole(short_spec(), digits, directory), directory


def start(digits, directory: Path, moment: str = "row", number: int = 0):
    arguments = (str(digits.directory), str(directory), moment, str(number))
    process = PROCESSES.Process(target=trainee.main, args=arguments)
    process.start()
    return process


def end_of(process) -> int:
    process.join(120)
    return process.exitcode


def assert_ends_as(undisturbed, digits, directory: Path) -> None:
    rows, expected, _ = undisturbed
    list(train(short_spec(), digits, setting_of(digits, directory)))
    found = load_checkpoint(directory)
    assert timeless(found.rows) == rows
    assert_same_state(found, expected)
    assert len([file for file in directory.iterdir() if file.name.startswith("epoch-")]) == 2
    assert not list(directory.glob(".*"))


@pytest.mark.parametrize(("moment", "number", "done"), [("take", 2, 1), ("row", 2, 2)])
def test_a_kill_inside_or_after_an_epoch_costs_that_epoch_at_most(undisturbed, digits, tmp_path, moment, number, done):
    assert end_of(start(digits, tmp_path, moment, number)) == -signal.SIGKILL
    before = completed_rows(tmp_path)
    assert len(before) == done and timeless(before) == undisturbed[0][:done]
    assert_ends_as(undisturbed, digits, tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_steps_of_writing_change_nothing(undisturbed, digits, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(4):
        assert end_of(start(digits, tmp_path, "file", rng.randint(2, 9))) == -signal.SIGKILL
    assert_ends_as(undisturbed, digits, tmp_path)


def test_kills_at_random_times_change_nothing(undisturbed, digits, tmp_path):
    rng = random.Random(0)
    epoch_s = [row.train_s + row.evaluating_s for row in completed_rows(undisturbed[2])]
    ends = []
    for _ in range(6):
        process = start(digits, tmp_path)
        process.join(rng.uniform(0, 1.5 * max(epoch_s)))
        process.kill()
        ends.append(end_of(process))
    assert set(ends) <= {0, -signal.SIGKILL} and ends[0] == -signal.SIGKILL
    assert_ends_as(undisturbed, digits, tmp_path)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(3):
        changed[rng.randrange(len(content))] ^= rng.randint(1, 255)
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize(("num_damaged", "left"), [(1, 2), (2, 0)])
def test_damaged_checkpoints_cost_epochs_and_change_nothing(undisturbed, digits, tmp_path, damage, num_damaged, left):
    rng = random.Random(num_damaged)
    list(train(short_spec(), digits, setting_of(digits, tmp_path, stop_after=3)))
    for file in sorted(tmp_path.iterdir())[-num_damaged:]:
        file.write_bytes(damage(file.read_bytes(), rng))

    assert len(completed_rows(tmp_path)) == left
    assert_ends_as(undisturbed, digits, tmp_path)


def test_a_full_disk_ends_training_with_the_files_name_and_with_free_space_it_resumes(undisturbed, digits, tmp_path):
    size = sum(file.stat().st_size for file in undisturbed[2].iterdir())
    with small_disk(tmp_path / "disk", str(4 * size)) as disk:
        directory = disk / "trial"
        list(train(short_spec(), digits, setting_of(digits, directory, stop_after=2)))
        before = {file: file.read_bytes() for file in directory.iterdir()}
        full = fill(disk, leave=size // 4)
        with pytest.raises(DiskError, match=rf"{directory}/epoch-000003-\w+\.pt \([0-9,]+ bytes\): No space"):
            list(train(short_spec(), digits, setting_of(digits, directory)))
        assert {file: file.read_bytes() for file in directory.iterdir()} == before
        full.unlink()
        assert_ends_as(undisturbed, digits, directory)
