"""Imported by the server of forked processes: what each would do anew when it opens its first storage is done here."""

import optuna
import psycopg  # noqa: F401

from gitdist.study.ledger.storage import close_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)
_storage = optuna.storages.RDBStorage("sqlite://")
optuna.create_study(storage=_storage, study_name="warm").add_trial(optuna.trial.create_trial(value=1.0))
close_storage(_storage)
