class Holder:
    """Takes its share of the cluster and does nothing; run as a Ray actor."""

    def ready(self) -> None:
        """Return once it has its share."""
