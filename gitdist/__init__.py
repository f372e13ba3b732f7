"""gitdist: which augmentation settings make a classifier accurate and invariant on the small classes.

Public are the names in ``__all__`` and their documented members, ``gitdist.api.callbacks.Callback``, and the commands
and study files. What is public is deprecated, with a warning, for at least one minor version before it is removed or
changes. Everything else may change in any version.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gitdist.api.dataset import Dataset
    from gitdist.api.ekld import ekld
    from gitdist.api.generator import Generator, train_generator
    from gitdist.api.git import GIT
    from gitdist.api.losses import loss
    from gitdist.api.run import run
    from gitdist.api.samplers import sampler
    from gitdist.api.study import load_study
    from gitdist.errors import GitdistError

__version__ = "0.5.0"
__all__ = [
    "GIT",
    "Dataset",
    "Generator",
    "GitdistError",
    "ekld",
    "load_study",
    "loss",
    "run",
    "sampler",
    "train_generator",
]

_MODULES = {
    "Dataset": "gitdist.api.dataset",
    "GIT": "gitdist.api.git",
    "Generator": "gitdist.api.generator",
    "GitdistError": "gitdist.errors",
    "ekld": "gitdist.api.ekld",
    "load_study": "gitdist.api.study",
    "loss": "gitdist.api.losses",
    "run": "gitdist.api.run",
    "sampler": "gitdist.api.samplers",
    "train_generator": "gitdist.api.generator",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: what it needs takes seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'gitdist' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
