"""Processes to be killed: forked from one server that has imported what they run, so each starts at once.

The server starts with the first process and serves the whole test session: what it imports must be told before, when
the test modules are collected.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext

_MODULES: list[str] = []


def forkserver(*modules: str) -> ForkServerContext:
    """Return the context of such processes; ``modules`` are those that they need."""
    _MODULES.extend(modules)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    return context
