"""Studies whose processes are killed end as if nothing had happened: real SIGKILL, the real command line.

``GITDIST_KILLED_STUDIES`` is the number of studies of the long campaign, 100 if it is not set.
"""

import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from gitdist.study.files.rows import read_rows
from tests.commands import call, environment, gitdist
from tests.study.small_study import SmallStudy, check_whole, stocked, wait_for_rows
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def kill_at(study: SmallStudy, num_rows: int, pause_s: float) -> None:
    """SIGKILL a driver ``pause_s`` seconds after the study has ``num_rows`` rows; it must not have ended before."""
    driver = study.start()
    until(lambda: driver.poll() is not None or num_rows_of(study) >= num_rows, limit_s=300)
    try:
        driver.wait(pause_s)
    except subprocess.TimeoutExpired:
        driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL, "the driver ended before it was killed"


def num_rows_of(study: SmallStudy) -> int:
    return sum(len(read_rows(file)) for file in study.directory.glob("**/rows.jsonl"))


def kill_driver_twice(study: SmallStudy, rng: random.Random) -> str:
    """Kill the driver at two random moments, one of them in the first 5 s; return when."""
    moments = [(0, rng.uniform(0.2, 5.0)), (rng.randint(1, 11), rng.uniform(0.0, 1.0))]  # of 12 rows
    rng.shuffle(moments)
    for moment in moments:
        kill_at(study, *moment)
    return " and ".join(f"{pause_s:.1f} s after {num_rows} rows" for num_rows, pause_s in moments)


def check_exact(study: SmallStudy, undisturbed: SmallStudy) -> None:
    """Run a study to its end; then its ledger, rows and MLflow must agree, and its rows be those of ``undisturbed``."""
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


def test_a_study_whose_driver_is_killed_ends_exact(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    kill_at(study, num_rows=5, pause_s=0.3)
    check_exact(study, undisturbed)


PRUNING = (
    "generator={kind: identity}",
    "trial.epochs=5",
    "search={total: 4, startup: 2, space: {threshold: {int: [20, 61]}, lr: {float: [0.001, 0.5], log: true}}}",
    "search.pruner={kind: successive-halving, min_epochs: 1, reduction_factor: 2}",
    "resources.max_concurrent=1",
)


def ends(study: SmallStudy) -> list[tuple]:
    return [(trial.number, trial.state.name, trial.last_step, trial.params, trial.values) for trial in study.trials()]


@pytest.mark.slow
def test_an_interrupted_serial_study_prunes_the_same_trials(tmp_path, teams_ledger):
    whole = SmallStudy(tmp_path / "whole", overrides=PRUNING)
    broken = SmallStudy(tmp_path / "broken", overrides=PRUNING, ledger=teams_ledger)
    undisturbed, driver = whole.start(), broken.start()
    try:
        wait_for_rows(broken, "trials/0001")  # the first that can be pruned
        driver.kill()
        driver.communicate(timeout=60)
        done = broken.run()
        assert done.returncode == 0, done.stdout + done.stderr
        shown, errors = undisturbed.communicate(timeout=400)
        assert undisturbed.returncode == 0, shown + errors
    finally:
        undisturbed.kill()
    pruned = [end[0] for end in ends(whole) if end[1] == "PRUNED"]
    assert pruned
    assert ends(broken) == ends(whole)
    assert broken.rows() == whole.rows()
    tagged = [run for run in broken.runs() if "gitdist.pruned" in run.data.tags]
    assert {run.info.status for run in tagged} == {"FINISHED"}
    assert sorted(int(run.data.tags["gitdist.trial"]) for run in tagged) == pruned


def offspring(pid: int, title: str) -> Iterator[psutil.Process]:
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()) or title == child.name():
                yield child
        except psutil.Error:
            continue


def kill_offspring(driver: subprocess.Popen, *titles: str) -> None:
    """SIGKILL every descendant of the driver that Ray names so; there must be one."""
    victims = [process for title in titles for process in offspring(driver.pid, title)]
    assert victims, [child.cmdline() for child in psutil.Process(driver.pid).children(recursive=True)]
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def members(driver: subprocess.Popen) -> list[psutil.Process]:
    """All processes of a driver's job: those of its session, which is what batch systems and systemd signal."""

    def is_member(process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == driver.pid
        except ProcessLookupError:
            return False

    return [process for process in psutil.process_iter() if is_member(process)]


def signal_all(driver: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal to all processes of a driver's job."""
    for process in members(driver):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_for_generator(study: SmallStudy, driver: subprocess.Popen) -> None:
    """Return once the training of a study's generator has left its first checkpoint."""
    place = study.results / "store" / "work"
    until(lambda: driver.poll() is not None or list(place.glob("generator-*/step-*")), limit_s=300)
    assert driver.poll() is None


@pytest.mark.slow
def test_killed_workers_server_and_router_change_nothing(tmp_path, undisturbed):
    study = SmallStudy(tmp_path)
    driver = study.start()
    wait_for_generator(study, driver)
    kill_offspring(driver, "ray::_train")
    for trial, victim in (("trials/0000", "ray::ImplicitFunc"), ("trials/0001", "ray::GeneratorServer")):
        wait_for_rows(study, trial)
        kill_offspring(driver, victim)
    wait_for_rows(study, "trials/0001", 2)
    kill_offspring(driver, "ray::Router")
    shown, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, shown + errors
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


@pytest.mark.slow
@pytest.mark.parametrize(
    "victims",
    [pytest.param(("gcs_server",), id="control"), ("gcs_server", "raylet", "ray::")],
)
def test_the_death_of_the_whole_local_ray_is_survived(tmp_path, undisturbed, victims):
    study, cwd = stocked(tmp_path, undisturbed), tmp_path / "cwd"
    cwd.mkdir()
    (cwd / "optuna.py").write_text("raise RuntimeError('not the library')")
    driver = study.start(cwd=cwd)
    wait_for_rows(study)
    (cwd / "gitdist").mkdir()
    (cwd / "gitdist" / "__init__.py").write_text("raise RuntimeError('not the package')")  # not for the restart
    kill_offspring(driver, *victims)
    shown, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, shown + errors
    assert "Ray on this machine has died" in shown
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


@pytest.mark.slow
def test_a_clean_up_of_rays_files_is_survived(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as temporary:  # short enough for Ray's sockets
        driver = study.start(RAY_TMPDIR=temporary)
        wait_for_rows(study)
        shutil.rmtree(f"{temporary}/ray", ignore_errors=True)
        shown, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, shown + errors
    assert "RAY_TMPDIR" in shown
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


def interrupt(study: SmallStudy, trial: str, *signals: signal.Signals) -> str:
    """Start the driver, send it signals once a trial has a row, and return what it showed in the end."""
    driver = study.start()
    wait_for_rows(study, trial)
    for number in signals:
        driver.send_signal(number)
        time.sleep(0.1)
    shown, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, shown + errors
    assert "Traceback" not in shown + errors
    assert "RUNNING" not in study.statuses() and "KILLED" in study.statuses()
    return shown


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once_and_once_lets_the_epoch_end_and_says_how_to_go_on(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    interrupt(study, "baseline", signal.SIGTERM, signal.SIGINT)
    shown = interrupt(study, "trials/0001", signal.SIGINT)
    assert "stopping after the current epochs" in shown
    assert f"gitdist resume small --results {study.results}" in shown
    done = call(gitdist("resume", "small", "--results", str(study.results)))
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


def test_sigterm_to_all_processes_while_the_generator_trains_is_an_interruption_too(tmp_path):
    study = SmallStudy(tmp_path, overrides=("generator.steps=100000",))
    driver = study.start()
    wait_for_generator(study, driver)
    signal_all(driver, signal.SIGTERM)
    shown, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, shown + errors
    assert shown.count("gitdist resume small") == 1 and "Traceback" not in shown + errors
    assert "trial(s) at once" in shown  # before anything runs
    assert "has died" not in shown  # it was stopped
    assert study.statuses() == ["KILLED"] * 2  # the study's and the generator's


@pytest.mark.slow
def test_a_job_whose_processes_are_all_stopped_at_once_stops_and_resumes_exact(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    for number, trial in ((signal.SIGHUP, "baseline"), (signal.SIGTERM, "trials/0000")):
        driver = study.start()
        wait_for_rows(study, trial)
        signal_all(driver, number)
        shown, errors = driver.communicate(timeout=120)
        assert driver.returncode == 130, shown + errors
        assert f"gitdist resume small --results {study.results}" in shown and "Traceback" not in shown + errors
        assert "has died" not in shown and "RUNNING" not in study.statuses()
    check_exact(study, undisturbed)


@pytest.mark.slow
def test_a_study_in_the_background_of_a_script_is_stopped_by_sigterm_and_not_by_ctrl_c(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    command = shlex.join(study.command())
    script = f"{command} & echo $!; wait $!; echo ended with $?"  # such a shell ignores SIGINT in what it starts so
    with subprocess.Popen(["sh", "-c", script], env=environment(), stdout=subprocess.PIPE, text=True) as shell:
        driver = int(shell.stdout.readline())
        wait_for_rows(study, "baseline")
        os.kill(driver, signal.SIGINT)
        wait_for_rows(study, "trials/0000")
        os.kill(driver, signal.SIGTERM)
        shown, _ = shell.communicate(timeout=120)
    assert "gitdist resume small" in shown and shown.endswith("ended with 130\n")
    check_exact(study, undisturbed)


def stop_between_writes(driver: subprocess.Popen, study: SmallStudy) -> None:
    """SIGSTOP a driver while it holds no lock of SQLite's, which would keep everybody from ledger or MLflow."""

    def is_free(file: Path) -> bool:
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as database:
            try:
                database.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return False
        return True

    def is_stopped() -> bool:
        driver.send_signal(signal.SIGSTOP)
        if is_free(study.directory / "ledger.db") and is_free(study.results / "mlflow.db"):
            return True
        driver.send_signal(signal.SIGCONT)
        return False

    until(is_stopped)


@pytest.mark.slow
def test_a_second_driver_is_refused_or_takes_over_and_the_first_one_then_keeps_still(tmp_path, undisturbed):
    study = stocked(tmp_path, undisturbed)
    first = study.start()
    try:
        wait_for_rows(study)
        stop_between_writes(first, study)
        refused = study.run()
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
        assert str(first.pid) in refused.stderr and "--take-over" in refused.stderr
        second = study.run("--take-over")
        assert second.returncode == 0, second.stdout + second.stderr
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 2 and "was taken over" in errors and len(errors.strip().splitlines()) == 1
    finally:
        first.kill()
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


LONG = 40  # epochs before the switch
DEFERRED = (
    "generator={kind: identity}",
    f"trial.epochs={LONG + 2}",
    f"trial.switch_epoch={LONG}",
    f"trial.lr_milestones=[{LONG + 1}]",
    "search.total=2",
    "resources.trial.cpu=0.4",
    "resources.max_concurrent=3",
)


def start_waiting(study: SmallStudy) -> subprocess.Popen:
    """Start the driver and return it in the middle of the prefix, which one trial trains and two wait for."""
    began = time.time()
    driver = study.start()
    places = [study.directory / name for name in ("baseline", "trials/0000", "trials/0001")]

    def epochs() -> list[int]:
        return [len(read_rows(place / "rows.jsonl")) for place in places]

    attempts = [place / "attempt" for place in places]
    until(lambda: all(file.exists() and file.stat().st_mtime > began for file in attempts), limit_s=300)
    before = max(epochs())
    until(lambda: max(epochs()) >= before + 2, limit_s=300)
    assert max(epochs()) < LONG
    return driver


@pytest.mark.slow
def test_a_study_stopped_killed_and_taken_over_while_trials_wait_for_the_prefix_ends_exact(tmp_path):
    alone = SmallStudy(tmp_path / "alone", overrides=(*DEFERRED, "sharing.prefix=false"))
    done = alone.run()
    assert done.returncode == 0, done.stdout + done.stderr
    study = SmallStudy(tmp_path / "shared", overrides=DEFERRED)
    driver = start_waiting(study)
    driver.send_signal(signal.SIGINT)
    shown, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, shown + errors
    assert shown.count("waits for its first stage") == 2 and shown.count(" interrupted") == 3
    driver = start_waiting(study)
    driver.kill()
    driver.communicate(timeout=60)
    first = start_waiting(study)
    try:
        stop_between_writes(first, study)
        second = study.run("--take-over")
        assert second.returncode == 0, second.stdout + second.stderr
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 2 and "was taken over" in errors
    finally:
        first.kill()
    check_whole(study, 2, LONG + 2)
    assert study.rows() == alone.rows()
    prefixes = [read_rows(place)[:LONG] for place in study.directory.glob("**/rows.jsonl")]
    assert len(prefixes) == 3 and all(prefix == prefixes[0] for prefix in prefixes)  # times and all: trained once


NUM_KILLED = int(os.environ.get("GITDIST_KILLED_STUDIES", "100"))
SERVERS_AND_WORKERS = {"server": "ray::GeneratorServer", "router": "ray::Router", "worker": "ray::ImplicitFunc"}
VICTIMS = ("driver", *SERVERS_AND_WORKERS, "group", "node")
NODE = {"num_cpus": 2, "include_dashboard": False}


def end_by_itself(driver: subprocess.Popen) -> None:
    shown, errors = driver.communicate(timeout=600)
    assert driver.returncode == 0, shown + errors


def kill_once(study: SmallStudy, victim: str, num_rows: int, pause_s: float) -> None:
    """Kill a part of a study ``pause_s`` seconds after the study has ``num_rows`` rows."""
    if victim == "node":
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            other = cluster.add_node(**NODE)
            driver = study.start("--address", cluster.address)
            wait_until_rows(study, driver, num_rows, pause_s)
            cluster.remove_node(other, allow_graceful=False)
            end_by_itself(driver)
        finally:
            cluster.shutdown()
        return
    driver = study.start()
    wait_until_rows(study, driver, num_rows, pause_s)
    if victim == "group":
        signal_all(driver, signal.SIGKILL)
        driver.communicate(timeout=60)
        assert driver.returncode == -signal.SIGKILL
    else:
        kill_offspring(driver, SERVERS_AND_WORKERS[victim])
        end_by_itself(driver)


def wait_until_rows(study: SmallStudy, driver: subprocess.Popen, num_rows: int, pause_s: float) -> None:
    until(lambda: driver.poll() is not None or num_rows_of(study) >= num_rows, limit_s=300)
    time.sleep(pause_s)
    if driver.poll() is not None:
        pytest.fail("the driver ended before anything was killed:\n" + "".join(driver.communicate()))


@pytest.fixture(scope="module")
def shared_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, NUM_KILLED + 1))
def test_a_study_of_which_something_is_killed_at_a_random_moment_ends_exact(
    tmp_path, shared_results, undisturbed, seed
):
    """Every other study shares its store and MLflow with others; every fifth has a journal."""
    rng, victim = random.Random(seed), VICTIMS[seed % len(VICTIMS)]
    results = tmp_path if seed % 4 < 2 else shared_results
    study = SmallStudy(results, f"small-{seed}", ledger="sqlite" if seed % 5 else "journal")
    if victim == "driver":
        when = kill_driver_twice(study, rng)
    else:
        num_rows, pause_s = rng.randint(1, 6), rng.uniform(0.0, 0.5)  # of 12 rows
        kill_once(study, victim, num_rows, pause_s)
        when = f"{pause_s:.1f} s after {num_rows} rows"
    check_exact(study, undisturbed)
    print(f"seed {seed}: {victim} killed {when}", flush=True)
