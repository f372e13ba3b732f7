"""Copies of results on an object store: a real S3 server, several copies in one process as in several."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gitdist.errors import SpecError, StoreError
from gitdist.store import Store, content_key
from gitdist.store.file_tree import FileTree
from gitdist.store.layout import cache_directory, cached_store
from gitdist.study.files.fencing import Attempt, StaleAttempt
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.files.rows import open_rows, read_rows
from gitdist.trial.checkpoint import checkpoints_of
from gitdist.trial.epoch_row import EpochRow
from tests.epoch_rows import epoch_row
from tests.waiting import until

TRIAL = TrialId("trial", 3)
SPEC = {"data": "digits"}


def copy_of(uri: str) -> StudyPaths:
    return StudyPaths.at(ObjectStoreResults(uri), "study")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def rows(num_epochs: int) -> list[EpochRow]:
    return [epoch_row(epoch) for epoch in range(1, num_epochs + 1)]


def train(attempt: Attempt, epochs: range) -> None:
    """Leave what a worker does: a checkpoint and a row an epoch, brought to the object store."""
    with open_rows(attempt.directory / "rows.jsonl", rows(epochs.start - 1)) as file:
        for epoch in epochs:
            attempt.check()
            checkpoints_of(attempt.directory).save(epoch, {"epoch": epoch})
            file.append(epoch_row(epoch).to_json())
            attempt.push()


def test_a_copy_gets_what_is_newer_missing_and_removed(object_store):
    here, there = copy_of(object_store.uri), copy_of(object_store.uri)
    assert here.results != there.results
    spec, page = write(here.spec, "one"), write(here.usage / "0001.json", "{}")
    write(here.study / "driver.lock", "")
    here.push(spec, page, write(here.summary, "{}"))
    there.pull()
    assert (there.spec.read_text(), there.usage.joinpath("0001.json").read_text()) == ("one", "{}")
    here.push(write(spec, "another"))
    here.results.remove(here.summary)
    there.pull()
    assert there.spec.read_text() == "another" and not there.summary.exists()
    assert object_store.names("study") == ["drivers/0001.json", "study.yaml"]


def test_a_signal_in_the_middle_of_a_push_leaves_a_whole_file(object_store, monkeypatch):
    paths = copy_of(object_store.uri)
    paths.push(write(paths.spec, "whole"))
    open_stream = FileTree._open_for_writing

    class Interrupting:
        """A stream to the object store, into whose first write the user's Ctrl-C comes."""

        def __init__(self, stream):
            self._stream = stream

        def __enter__(self):
            self._stream.__enter__()
            return self

        def __exit__(self, *error):
            self._stream.__exit__(*error)

        def write(self, chunk):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.1)
            self._stream.write(chunk)

    monkeypatch.setattr(FileTree, "_open_for_writing", lambda *asked: Interrupting(open_stream(*asked)))
    with pytest.raises(KeyboardInterrupt):
        paths.push(write(paths.spec, "another"))
    assert FileTree.of_uri(object_store.uri).read("study/study.yaml") == b"another"


def test_a_file_of_ours_that_is_not_there_yet_stays(object_store):
    here, there = copy_of(object_store.uri), copy_of(object_store.uri)
    there.push(write(there.spec, "there"))
    write(here.identity, "mine")
    here.pull()
    assert here.identity.read_text() == "mine" and here.spec.read_text() == "there"


def test_checkpoints_and_reports_are_fetched_by_those_alone_who_need_them(object_store):
    worker, driver = copy_of(object_store.uri), copy_of(object_store.uri)
    train(Attempt.begin(worker.trial(TRIAL), 0, worker.results), range(1, 4))
    worker.push(write(worker.study / "report" / "index.html", "page"))
    driver.pull()
    assert sorted(file.name for file in driver.trial(TRIAL).iterdir()) == ["attempt", "rows.jsonl"]
    assert driver.results.newest_remote_checkpoint(driver.trial(TRIAL)) == 3
    assert not (driver.study / "report").exists()
    told = [name.partition("-")[0] for name in object_store.names("study/trials/0003")]
    assert told == ["attempt", "epoch", "epoch", "rows.jsonl"]  # as on a disk, the newest two


def test_another_machine_goes_on_from_the_checkpoint_and_the_first_one_stops(object_store):
    first, second, driver = (copy_of(object_store.uri) for _ in range(3))
    old = Attempt.begin(first.trial(TRIAL), 0, first.results)
    train(old, range(1, 3))
    new = Attempt.begin(second.trial(TRIAL), 0, second.results)
    assert checkpoints_of(new.directory).load() == (2, {"epoch": 2})
    assert read_rows(second.rows(TRIAL)) == rows(2)
    with pytest.raises(StaleAttempt):
        train(old, range(3, 4))
    train(new, range(3, 5))
    driver.pull(TRIAL)
    assert read_rows(driver.rows(TRIAL)) == rows(4)


def test_a_checkpoint_is_there_before_the_row_that_counts_on_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / "mirrors"))
    (tmp_path / "there" / "study" / "trials" / "0003" / "rows.jsonl").mkdir(parents=True)  # so it cannot be written
    worker = copy_of(f"file://{tmp_path}/there")
    with pytest.raises(StoreError, match="must be reachable and writable"):
        train(Attempt.begin(worker.trial(TRIAL), 0, worker.results), range(1, 2))
    assert checkpoints_of(tmp_path / "there" / "study" / "trials" / "0003").load() == (1, {"epoch": 1})


def test_an_outage_is_waited_for_here_and_by_a_worker_that_starts_in_it(object_store, caplog):
    uri = object_store.uri
    paths, store = copy_of(uri), Store(cached_store(uri), shared=f"{uri}/store", results=uri)
    assert paths.results.read(paths.spec) is None and store.find("thing", SPEC) is None
    arrived = pickle.loads(pickle.dumps(paths))
    object_store.stop()
    back = threading.Timer(9.0, object_store.start)  # pyarrow itself tries for 6 s
    back.start()
    with ThreadPoolExecutor() as pool:
        pool.submit(store.get_or_build, "thing", SPEC, lambda target, scratch: write(target / "value", "whole"))
        pool.submit(arrived.push, write(arrived.identity, "of a worker"))
        paths.push(write(paths.spec, "kept"))
    back.join()
    assert paths.results.read(paths.spec) == b"kept" and paths.results.read(paths.identity) == b"of a worker"
    assert f"thing/{content_key('thing', SPEC)}/value" in object_store.names("store")
    for service in (f"the results on {uri}", f"the shared store {uri}/store"):
        shown = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{service} c")]
        starts = [line for line in shown if "cannot be used" in line]
        ends = [line for line in shown if "can be used again" in line]
        assert len(starts) == len(ends) >= 1, shown


def test_an_outage_that_lasts_is_one_line_without_secrets(object_store, monkeypatch):
    monkeypatch.setenv("GITDIST_OUTAGE_S", "0.1")
    paths = copy_of(object_store.uri)
    assert paths.results
    paths.results.connect()
    object_store.stop()
    with pytest.raises(StoreError, match=f"the results on {object_store.uri} must be reachable") as caught:
        paths.push(write(paths.spec, "kept"))
    assert "\n" not in str(caught.value) and "hidden-word" not in str(caught.value)
    with pytest.raises(StoreError, match="must be reachable"):  # a new command does not wait
        ObjectStoreResults(object_store.uri).connect()


def test_a_bucket_that_is_not_there_is_told_in_one_line(object_store):
    with pytest.raises(StoreError, match="correct the URI of the results") as caught:
        ObjectStoreResults("s3://no-bucket/results").connect()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3://key:hidden-word@bucket/results", "abfs://box@host/results?sas_token=hidden-word"]
)
def test_credentials_in_the_uri_are_refused_and_not_told(uri):
    with pytest.raises(SpecError, match="the URI of the results must hold no credentials") as caught:
        ObjectStoreResults(uri)
    assert "hidden-word" not in str(caught.value)


def test_errors_name_the_results_and_not_the_copy(object_store):
    paths = copy_of(object_store.uri)
    assert paths.results
    with (
        pytest.raises(StoreError, match=f"^{object_store.uri}/study/study.yaml is damaged$"),
        paths.results.rewriting_errors(),
    ):
        raise StoreError(f"{paths.spec} is damaged")


KILLED = """
import time
from gitdist.study.files.results import ObjectStoreResults
mirror = ObjectStoreResults("s3://bucket/results")
print(mirror.directory, flush=True)
time.sleep(60)
"""


def test_the_copy_of_a_killed_process_goes_and_that_of_one_that_lives_stays(object_store):
    alive = ObjectStoreResults(object_store.uri)
    assert alive.directory.is_dir()
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        other = ObjectStoreResults(object_store.uri)
        seen = other.directory.parent == left.parent and left.is_dir()
        process.kill()
    assert seen and ObjectStoreResults(object_store.uri).directory.is_dir()
    assert not left.exists() and alive.directory.is_dir()


def test_an_artifact_is_found_by_kind_and_key_on_another_machine(object_store, monkeypatch, tmp_path):
    uri = object_store.uri
    store = Store(cached_store(uri), shared=f"{uri}/store", results=uri)
    built = store.get_or_build("thing", SPEC, lambda target, scratch: write(target / "value", "whole"))
    sent = pickle.dumps(store)
    monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / "another"))
    arrived = pickle.loads(sent)
    assert arrived.resolve_locally(built) == tmp_path / "another" / cache_directory(
        uri
    ).name / "store" / "thing" / content_key("thing", SPEC)
    assert (arrived.resolve_locally(built) / "value").read_text() == "whole"
    with pytest.raises(StoreError, match="run the same command again"):
        arrived.resolve_locally(built.with_name("0" * 20))


def test_a_mirror_is_another_copy_where_it_arrives(object_store):
    mirror = ObjectStoreResults(object_store.uri)
    arrived = pickle.loads(pickle.dumps(mirror))
    assert (arrived.uri, os.fspath(arrived.directory)) != (mirror.uri, os.fspath(mirror.directory))
    until(arrived.directory.is_dir)
