"""MLflow as a view of the study: runs are made from the ledger and the rows files, and made again after an outage."""
