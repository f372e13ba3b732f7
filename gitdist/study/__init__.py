"""The study: the search, the driver that runs it, and its records."""
