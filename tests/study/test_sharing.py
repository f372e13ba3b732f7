"""What sharing saves is counted, and no number of a trial changes by it; real studies, by the command line."""

import json

from gitdist.study.effort import Shared, TakenPrefix, trainer_name
from gitdist.study.paths import StudyPaths, TrialId
from gitdist.study.rows import read_rows
from tests.study.small_study import SmallStudy, check_whole, stocked

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


def test_a_trial_tells_which_prefix_it_took_and_what_that_saved(undisturbed):
    prefixes = {json.loads(place.read_text())["prefix"] for place in undisturbed.directory.glob("**/trial.json")}
    assert prefixes == {place.name for place in (undisturbed.results / "store" / "prefix").iterdir()}
    paths = StudyPaths(undisturbed.results, "small")
    baseline = f"small-{paths.identity.read_text()[:8]}/baseline"
    for run in undisturbed.runs():
        number, tags = run.data.tags.get("gitdist.trial"), run.data.tags
        if number is not None:
            trial = TrialId("trial", int(number))
            prefix = TakenPrefix.read(paths.trial(trial))
            taken = Shared.of(read_rows(paths.rows(trial)), trainer_name(paths, trial), prefix)
            told = {"epochs": 1, "trained_by": baseline, "saved_s": taken.saved_s}
            assert taken == Shared(**told) and {tags["gitdist.prefix"]} == prefixes
            assert tags["gitdist.prefix_trained_by"] == baseline and tags["gitdist.prefix_epochs"] == "1"
            assert tags["gitdist.prefix_saved_s"] == f"{taken.saved_s:.1f}"
