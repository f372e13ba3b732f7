"""gitdist: which augmentation settings make a classifier accurate and invariant on the small classes."""

__version__ = "0.5.0"
