"""How training treats classes of unequal size: samplers and losses, one table each.

Pure functions that know no study file. A new sampler or loss is one function and its line in the table. Its
keyword-only parameters, if any, are fields of ``TrialSpec`` with the same names.
"""

import inspect
from collections.abc import Callable
from typing import Any


def read_fields(rule: Callable[..., Any]) -> set[str]:
    """Return the fields of ``TrialSpec`` that a sampler or a loss reads: its keyword-only parameters."""
    parameters = inspect.signature(rule).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
