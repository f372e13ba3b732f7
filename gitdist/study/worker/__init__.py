"""The code of a worker process, which runs one trial."""
