"""What sharing saves is counted, and no number of a trial changes by it; real studies, by the command line."""

import json

import pytest
from whole_study import WholeStudy, differing_rows, work_ratio

from gitdist.study.files.attribution import ReusedPrefix, SharedEpochs, trainer_name
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from tests.study.small_study import SmallStudy, check_whole, stocked

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

OFF = ("sharing.stream=false", "sharing.prefix=false")


def summary_of(study: SmallStudy) -> dict:
    return json.loads((study.directory / "summary.json").read_text())


def test_sharing_on_and_off_give_the_same_rows_and_count_what_it_saved(undisturbed, tmp_path):
    alone = stocked(tmp_path, undisturbed, *OFF)
    done = alone.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(alone, 3)
    assert alone.rows() == undisturbed.rows()
    on, off = summary_of(undisturbed), summary_of(alone)
    assert (on["trained_epochs"], on["shared_epochs"]) == (1 + 4 * 2, 3)  # one prefix, which three of four found
    assert (off["trained_epochs"], off["shared_epochs"], off["saved_s"]) == (4 * 3, 0, 0)
    assert on["saved_s"] > 0 and off["generated_images"] > on["generated_images"] > 0
    assert on["best"] == off["best"]
    check_benchmark(undisturbed, alone)


def check_benchmark(on: SmallStudy, off: SmallStudy) -> None:
    """What `studies/benchmarks/whole_study.py` reads of the two."""
    with_sharing, without = (
        WholeStudy.read(StudyPaths.at(study.results, study.name), (0.0, 1.0)) for study in (on, off)
    )
    assert differing_rows(with_sharing.results, without.results) == 0
    times = [{kind: each.times for kind, each in study.work.items()} for study in (with_sharing, without)]
    tests = 2
    assert times == [
        {"prefixes": 1, "rests": 8, "generation": with_sharing.generated_images, "evaluation": 9 + tests},
        {"prefixes": 4, "rests": 8, "generation": without.generated_images, "evaluation": 12 + tests},
    ]
    assert all(each.seconds > 0 for study in (with_sharing, without) for each in study.work.values())
    assert work_ratio(without.work, with_sharing.work) > 1


def test_a_trial_tells_which_prefix_it_took_and_what_that_saved(undisturbed):
    prefixes = {json.loads(place.read_text())["prefix"] for place in undisturbed.directory.glob("**/trial.json")}
    assert prefixes == {place.name for place in (undisturbed.results / "store" / "prefix").iterdir()}
    paths = StudyPaths.at(undisturbed.results, "small")
    baseline = f"small-{paths.identity.read_text()[:8]}/baseline"
    for run in undisturbed.runs():
        number, tags = run.data.tags.get("gitdist.trial"), run.data.tags
        if number is not None:
            trial = TrialId("trial", int(number))
            prefix = ReusedPrefix.read(paths.trial(trial))
            taken = SharedEpochs.of(read_rows(paths.rows(trial)), trainer_name(paths, trial), prefix)
            told = {"epochs": 1, "trained_by": baseline, "saved_s": taken.saved_s}
            assert taken == SharedEpochs(**told) and {tags["hash.prefix"]} == prefixes
            assert tags["gitdist.prefix_trained_by"] == baseline and tags["gitdist.prefix_epochs"] == "1"
            assert tags["gitdist.prefix_saved_s"] == f"{taken.saved_s:.1f}"
