"""One stream of augmentations for all trials of a study: pure blocks, generated once, read by everyone."""
