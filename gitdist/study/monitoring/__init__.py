"""Observers of a running study, which do not change it: display, statistics of the stream, MLflow."""
