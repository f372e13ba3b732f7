"""The ledger: the Optuna storage, the only record of a study's trials and of the driver that owns the study."""
