"""Files of a study: their paths, rows, copies on an object store, and who may write them."""
