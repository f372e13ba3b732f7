"""MLflow as a copy of the study: its runs are written from the ledger and the rows files, and again after an outage."""
