"""How much each searched field matters for the objective, by Optuna."""

import optuna
from optuna.trial import create_trial

from gitdist.report.coordinates import varied_fields
from gitdist.report.records import StudyRecord
from gitdist.study.ledger.space import distribution

MIN_TRIALS = 8


def importances(study: StudyRecord) -> dict[str, float] | None:
    """Return each searched field's share of importance for the first objective, the largest first.

    By PED-ANOVA (Watanabe et al. 2023), Optuna's own choice: which fields the better trials have in common.

    Args:
        study: its finished trials are looked at.

    Returns:
        Shares that sum to 1; None for fewer than ``MIN_TRIALS`` finished trials or fewer than two fields.
    """
    space = study.spec.search.space
    valued = [(trial, trial.value("validation", study.objective)) for trial in study.finished]
    trials = [(trial, value) for trial, value in valued if value is not None]
    varied = varied_fields(study)
    if len(trials) < MIN_TRIALS or len(varied) < 2:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    copy = optuna.create_study(direction=study.spec.search.directions[0])
    for trial, value in trials:
        params = {field: trial.params[field] for field in varied if field in trial.params}
        distributions = {field: distribution(space[field]) for field in params}
        copy.add_trial(create_trial(params=params, distributions=distributions, value=value))
    shares = optuna.importance.get_param_importances(copy)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
