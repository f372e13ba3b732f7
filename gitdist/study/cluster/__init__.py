"""The Ray cluster: connection, watchdog, signals, and the check of its shared file system."""
