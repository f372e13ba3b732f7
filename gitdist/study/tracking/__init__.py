"""MLflow brought to what the study's files and ledger say."""
