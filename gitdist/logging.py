"""Environment variables that switch off the libraries' telemetry and their messages on the terminal."""

import logging
import os

_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's announced default; unset, it warns of the change
    # Long messages of Ray on every lost worker and node; the study reports what happens to the trials.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "retries remaining|marked dead|worker died|Raylet is terminated",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else SIGTERM while Ray starts takes 30 s
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own progress table
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # for a stopped trial to end, before its worker is used again
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours (study/cluster/signals.py)
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots of a state that is never restored
}


def silence_libraries() -> None:
    """Set the variables that the user has not set; call it before Ray or MLflow is imported."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "matplotlib", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
