"""One trial in its worker process."""
