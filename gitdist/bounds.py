"""How many bytes may be held of what grows with the number, the size or the classes of images.

    what                                 bound                        above it
    decoded images of a folder           DECODED_BYTES                in a temporary file, memory-mapped
    images copied or transformed at once CHUNK_BYTES                  chunk by chunk
    training images on a GPU             resources.trial.dataset_gb   batches are gathered ahead by threads
    content codes of a server            CODES_SHARE of its memory    the least recently used are computed again
    a trial's blocks of all classes      BLOCKS_BYTES                 smaller blocks, with stream.block_size auto
    stored eKLD images of a split        EKLD_BYTES, on disk          drawn again for each evaluation, by their seeds
    images of one picture of samples     PICTURE_BYTES                fewer rows

A generator encodes 64 images at once, so all their draws are held, also above CHUNK_BYTES. Numbers do not depend on a
bound, but for that of blocks.
"""

DECODED_BYTES = 2**30
CHUNK_BYTES = 16 * 2**20  # a rotation takes 25 times as much while it is computed
CODES_SHARE = 0.25
TRAINING_SHARE = 0.5  # of a trial's part of a GPU's memory: dataset_gb auto
BLOCKS_BYTES = 2**30  # of the object store
EKLD_BYTES = 16 * 2**30
PICTURE_BYTES = 16 * 2**20


def rows_within(num_bytes: int, row_bytes: int, multiple: int = 1) -> int:
    """Return how many rows fit into ``num_bytes``: a multiple of ``multiple``, and at least that."""
    return max(num_bytes // (row_bytes * multiple), 1) * multiple
