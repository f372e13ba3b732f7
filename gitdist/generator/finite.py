"""Weights that are not finite make a generator draw black images, so they are refused wherever they are read."""

from collections.abc import Mapping

from torch import Tensor


def non_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the first of the named weights that holds NaN or infinite values; None if there is none."""
    return next((name for name, weight in sorted(weights.items()) if not weight.isfinite().all()), None)
