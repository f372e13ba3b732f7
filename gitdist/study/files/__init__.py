"""Files of a study: their paths and rows, their copies on an object store, and the fencing of their writers.

All functions that write raise ``DiskError`` if the disk is full or failing and leave the old file unchanged, and
``StoreError`` if the object store with the results cannot be reached.
"""
