"""A finished trial of a study, and its classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gitdist.api.callbacks import TrialLabel, label
from gitdist.api.reading import reading
from gitdist.export.model import ProbabilityModel
from gitdist.spec import TrialSpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.models import choose_model, load_model, open_dataset
from gitdist.study.summary import last_metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedTrial:
    """A finished trial of a study.

    Attributes:
        number: of the trial, or ``"baseline"``.
        params: its searched parameters; none for the baseline.
        metrics: ``val/...`` of its last evaluated epoch, and ``test/...`` if it was evaluated on test.
        spec: its complete training settings.
    """

    number: TrialLabel
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    spec: TrialSpec
    _paths: StudyPaths

    def classifier(self) -> ProbabilityModel:
        """Return the trained classifier, in evaluation mode, on the CPU.

        It maps uint8 images ``[N, C, H, W]`` to probabilities, float32 ``[N, num_classes]``. Its ``classifier`` is the
        network itself, which maps normalised images to logits.

        Raises:
            StoreError: the last checkpoint is not there.
            DataError: the store has lost the data set, and its source cannot be read.
        """
        with reading(self._paths) as study:
            return load_model(study, choose_model(study, self.number), open_dataset(study)).module


def read_trial(paths: StudyPaths, number: TrialLabel | None) -> TrainedTrial:
    """Return a finished trial of a study; None = the best one.

    Raises:
        StudyError: it has not finished or does not exist, or no single trial is the best.
    """
    with reading(paths) as study:
        job = choose_model(study, number)
        records = study.ledger.trials()
    return TrainedTrial(
        number=label(job.trial),
        params={} if job.trial.number is None else dict(records[job.trial.number].params),
        metrics=last_metrics(paths, job.trial),
        spec=job.spec,
        _paths=paths,
    )
