"""Long-tailed image data sets: sources, class-size profiles, the true nuisances, and the prepared arrays."""

SPLITS = ("train", "validation", "test")
DATASET_FORMAT = 2  # of prepared data sets; another one splits in another way
