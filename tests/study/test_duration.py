"""What a study says about its duration before it begins, and when it asks."""

import io
import os
import subprocess
import time

import pytest
import torch
from rich.console import Console

from gitdist.cli.run import _confirm
from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute
from gitdist.errors import SpecError, StudyError
from gitdist.generator.kinds import obtain_artifact
from gitdist.spec import StudySpec
from gitdist.spec.file import parse_study
from gitdist.store import Store
from gitdist.study.duration import Duration, announce_duration, estimate_duration
from gitdist.study.monitoring.display import open_display
from gitdist.study.speeds import Speeds, measure_speeds
from tests.commands import environment
from tests.study.small_study import SPEC, SmallStudy

LONG = ("generator={kind: oracle}", "trial.epochs=1000000", "resources.trial.gpu=99")


def study(**parts) -> StudySpec:
    return parse_study({**SPEC, **{name: {**SPEC.get(name, {}), **fields} for name, fields in parts.items()}}, "test")


def without_baseline(spec: StudySpec) -> StudySpec:
    return spec.model_copy(update={"baseline": False})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def dataset(store) -> Dataset:
    return prepare(study().data, store)


def test_steps_epochs_and_draws_are_counted(dataset):
    speeds = Speeds(per_step=2.0, per_sample=1.0)
    evaluated = len(dataset.validation.labels) + 10 * 2 * (1 + 2)
    epoch_s = len(dataset.train.labels) + evaluated / 3
    found = estimate_duration(study(), dataset, speeds, 2)
    assert found.generator_s == 30 * 2.0
    assert found.trials_s == pytest.approx(epoch_s * (1 + 2 * 2))  # the prefix once, two trials after the other two
    assert (found.num_trials, found.max_concurrent) == (4, 2)
    alone = study(sharing={"prefix": False})
    assert estimate_duration(alone, dataset, speeds, 8).trials_s == pytest.approx(3 * epoch_s)
    longer = study(search={"space": {"epochs": {"choice": [3, 30]}}})
    assert estimate_duration(longer, dataset, speeds, 8).trials_s > 9 * found.trials_s / 5
    shorter = study(search={"space": {"epochs": {"choice": [1, 2]}}}, trial={"epochs": 100, "lr_milestones": [1]})
    counted = [estimate_duration(spec, dataset, speeds, 8).trials_s for spec in (shorter, without_baseline(shorter))]
    assert counted[0] > 10 * counted[1]  # of the epochs in ``trial`` only the baseline trains all
    none = parse_study({**SPEC, "search": {"total": 0}, "baseline": False}, "test")
    assert estimate_duration(none, dataset, speeds, 1).trials_s == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0.4 s"), (60, "1 min"), (86_400 * 2.5, "2.5 days"), (86_400 * 1234, "1,234 days")]
)
def test_a_duration_is_a_plain_number(seconds, text):
    duration = Duration(generator_s=seconds, trials_s=0, num_trials=0, max_concurrent=1, on_cluster=False)
    assert f"takes about {text} on this machine" in duration.describe()


def test_stop_rules_make_the_duration_a_bound(dataset):
    speeds = Speeds(per_step=2.0, per_sample=1.0)
    whole, limited, patient = (
        estimate_duration(study(search=search), dataset, speeds, 2)
        for search in ({}, {"max_hours": 0.01}, {"patience": 2})
    )
    assert (limited.total_s, patient.total_s) == (36.0, whole.total_s) and whole.total_s > 36.0
    assert ["at most" in each.describe() for each in (whole, limited, patient)] == [False, True, True]


def test_draws_count_if_servers_are_slower_than_trials(dataset):
    speeds = Speeds(per_draw=1000.0, per_sample=1.0)
    one, two = (estimate_duration(study(resources={"servers": n}), dataset, speeds, 4).trials_s for n in (1, 2))
    assert one == 2 * two > 1000
    each = estimate_duration(study(sharing={"stream": False}), dataset, speeds, 2).trials_s
    assert each > 2 * one


def test_measuring_leaves_nothing_behind_and_skips_a_generator_in_the_store(dataset, store):
    spec, before, threads = study(), torch.get_rng_state(), torch.get_num_threads()
    files = sorted(store.root.rglob("*"))
    speeds = measure_speeds(spec, dataset.directory, store)
    assert min(speeds.per_step, speeds.per_draw, speeds.per_sample) > 0
    assert sorted(store.root.rglob("*")) == files
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    obtain_artifact(spec.generator, dataset, store, lambda step: None, Compute.resolve(device="cpu"))
    again = measure_speeds(spec, dataset.directory, store)
    assert again.per_step == 0 and again.per_draw > 0


def announced(spec: StudySpec, dataset: Dataset, store: Store, **options) -> tuple[str, list[str]]:
    console, asked = Console(file=io.StringIO(), width=1000), []
    with open_display(console) as display:
        announce_duration(spec, dataset, store, options.get("address", "local"), display, asked.append)
    return console.file.getvalue(), asked


def test_only_a_long_study_is_asked_about(dataset, store):
    shown, asked = announced(study(), dataset, store)
    assert "the study takes about" in shown and "on this machine" in shown and not asked
    shown, asked = announced(study(trial={"epochs": 1_000_000}), dataset, store)
    assert len(asked) == 1 and asked[0] in shown and "days" in shown
    shown, _ = announced(study(), dataset, store, address="10.0.0.1:6379")
    assert "the cluster, at the speed of this machine" in shown and "4 at once" in shown


def test_settings_that_do_not_fit_are_refused_also_by_the_child_process(dataset, store):
    for changes in ({}, {"batch_size": 1024}):
        with pytest.raises(SpecError, match="num_downsample"):
            announced(study(generator={"num_downsample": 3, **changes}), dataset, store)


def test_what_cannot_be_measured_stops_no_study(dataset, store, monkeypatch):
    def fail(*arguments: object) -> Speeds:
        raise MemoryError

    monkeypatch.setattr("gitdist.study.duration.measure_speeds", fail)
    shown, asked = announced(study(), dataset, store)
    assert "cannot be measured (MemoryError)" in shown and not asked


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("shared_ray")
def test_without_a_terminal_a_long_study_needs_yes_and_one_that_has_begun_does_not(tmp_path):
    small = SmallStudy(tmp_path, overrides=LONG)
    refused = small.run()
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stdout + refused.stderr
    assert "--yes" in refused.stderr and "days" in refused.stderr
    assert not (small.directory / "study.yaml").exists()
    for arguments in (("--yes",), ()):
        begun = small.run(*arguments)
        assert begun.returncode == 2 and "99 GPU" in begun.stderr and "--yes" not in begun.stderr
    assert (small.directory / "study.yaml").exists()


class _EndedTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_end_of_input_is_no(monkeypatch):
    monkeypatch.setattr("sys.stdin", _EndedTerminal())
    with pytest.raises(StudyError, match="was not started"):
        _confirm(Console(file=io.StringIO(), force_terminal=True), "it takes long")


@pytest.mark.timeout(120)
def test_on_a_terminal_a_long_study_is_asked_about(tmp_path):
    own, theirs = os.openpty()
    process = subprocess.Popen(
        SmallStudy(tmp_path, overrides=LONG).command(), env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 100
    while b"[y/N]" not in shown:
        assert time.monotonic() < deadline, shown
        try:
            shown += os.read(own, 4096)
        except OSError:  # the other side is closed
            pytest.fail(f"it has ended without asking: {shown.decode()}")
    os.write(own, b"n\n")
    with open(own, "rb", buffering=0, closefd=True) as terminal:
        while process.poll() is None:
            try:
                shown += terminal.read(4096) or b""
            except OSError:  # the other side is closed
                break
    assert process.wait() == 2 and b"was not started" in shown and b"Traceback" not in shown
    assert not (tmp_path / "small" / "study.yaml").exists()
