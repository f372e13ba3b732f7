"""Named randomness: a seed is a hash of (root seed, name, indices) and does not depend on the order of calls.

A new random draw gets a new name and so changes no other draw.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # slow to import
    import torch


def derive_seed(root: int, name: str, *indices: int) -> int:
    """Return the 63-bit seed of one named random draw.

    Args:
        root: the seed that the draw belongs to (the study's, the stream's, the data version's).
        name: what is drawn, such as ``"trial/shuffle"``.
        indices: where it is drawn, such as the epoch.
    """
    text = ":".join([str(int(root)), name, *(str(int(index)) for index in indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_rng(root: int, name: str, *indices: int) -> np.random.Generator:
    """Return a NumPy generator for one named random draw."""
    return np.random.default_rng(derive_seed(root, name, *indices))


def torch_rng(root: int, name: str, *indices: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator on ``device`` for one named random draw."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(root, name, *indices))
