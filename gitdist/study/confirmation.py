"""Selects the trial that a confirmation is about, and checks that what is to vary does vary."""

from collections.abc import Sequence

from gitdist.data.dataset import prepare
from gitdist.errors import SpecError, StudyError
from gitdist.spec.confirmation import Selected, Source
from gitdist.spec.search import SEED
from gitdist.study.files.layout import open_store
from gitdist.study.ledger.records import TrialRecord
from gitdist.study.models import choose_record
from gitdist.study.study import Study


def select_trial(study: Study, number: int | None) -> tuple[Selected, TrialRecord]:
    """Return the trial to confirm; without a number the best one of a finished search.

    Raises:
        StudyError: the search has not ended, so its best trial may change; or as ``choose_record``.
    """
    if number is None and study.ledger.num_open():
        raise StudyError(
            f"study '{study.spec.name}' has trials that have not ended, so its best one may change; resume it, or "
            "choose a trial",
            remedy="choose_trial",
        )
    record, spec = choose_record(study, number), study.spec
    seeds = {spec.changes(each.params).get(SEED, spec.trial.seed) for each in study.ledger.trials()}
    fields = spec.changes(record.params)
    return Selected(spec=spec, trial=record.number, fields=fields, seeds=frozenset({spec.trial.seed, *seeds})), record


def check_data_varies(study: Study, varied: Sequence[Source]) -> None:
    """Refuse to vary a data set whose version has no influence: its splits are given, and nothing is drawn.

    Raises:
        DataError: the data set cannot be prepared.
        SpecError: the next version has the same images in each split.
    """
    if "data" not in varied:
        return
    data, store = study.spec.data, open_store(study.paths, study.spec)
    other = data.model_copy(update={"version": data.version + 1})
    if prepare(other, store).fingerprint == prepare(data, store).fingerprint:
        raise SpecError(
            f"data.version must change the data set of study '{study.spec.name}' to be varied, but its splits and "
            "images are the same with another version; vary training or generator"
        )
