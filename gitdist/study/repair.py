"""Repairs the files of trials that have ended, after a crash or damage, from what they follow from.

rows.jsonl   from the newest checkpoint; epochs that it lacks are trained again
trial.json   from the spec and the data set; it then does not say what the trial reused
test.json    is removed if it is damaged; a chosen trial is evaluated on test again
"""

from gitdist.data.dataset import Dataset
from gitdist.study.files.json_files import Description, ResultOnTest, read_json
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import repair_trial
from gitdist.study.study import Study
from gitdist.study.worker.job import TrialJob
from gitdist.study.worker.trial_task import write_description


def repair_trials(study: Study, dataset: Dataset | None) -> None:
    """Repair the files of all trials that have ended; without the study's data set, their rows alone."""
    paths = study.paths
    if paths.trial(BASELINE).is_dir():
        repair_trial(paths, BASELINE)  # only its rows say whether it has ended
    links = {TrialId("trial", record.number): record.links for record in study.ledger.trials()}
    for trial, (params, outcome) in study.trial_states().items():
        if outcome is None:
            continue
        repair_trial(paths, trial)
        if dataset is None or outcome.state not in ("finished", "pruned") or not paths.rows(trial).exists():
            continue
        if read_json(paths.description(trial), Description) is None:
            write_description(paths, TrialJob.create(study.spec, trial, params, links=links.get(trial, {})), dataset)
            paths.push(paths.description(trial))
        if paths.test(trial).exists() and read_json(paths.test(trial), ResultOnTest) is None:
            paths.results.remove(paths.test(trial))
