"""Mirrors the study in MLflow: writes runs from the ledger and the rows files, again after an outage."""
