"""Files of a study: their paths, rows, copies on an object store, and who may write them.

Everything that writes raises ``DiskError`` if the disk is full or failing and leaves the old file unchanged, and
``StoreError`` if the object store with the results cannot be reached.
"""
