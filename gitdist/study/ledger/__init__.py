"""The ledger: Optuna's storage as the only record of a study's trials, and of who drives it."""
