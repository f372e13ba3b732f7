"""Long-tailed image data sets: sources, class-size profiles, the true nuisances, and the prepared arrays."""

SPLITS = ("train", "validation", "test")
