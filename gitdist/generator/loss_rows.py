"""The losses of a training as rows of means over a few steps; refuses what is not finite."""

import json
import math

import torch
from torch import Tensor

from gitdist.errors import TrialFailedError
from gitdist.generator.objective import LOSS_NAMES


class LossRows:
    """Losses of single steps, not yet read from the device or waiting for their row to be full, and the rows so far."""

    def __init__(self) -> None:
        """Start without rows."""
        self.rows: list[list[float]] = []
        self.pending: list[list[float]] = []
        self._unread: list[Tensor] = []

    def add(self, losses: Tensor) -> None:
        """Append one step's losses, float32 ``[5]``, without reading them yet."""
        self._unread.append(losses)

    def read(self, step: int) -> None:
        """Fetch what was added up to and including ``step`` (from 1).

        Raises:
            TrialFailedError: a loss is not finite.
        """
        values = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        for number, row in enumerate(values, start=step - len(values) + 1):
            for name, value in zip(LOSS_NAMES, row, strict=True):
                if not math.isfinite(value):
                    raise TrialFailedError(f"generator training: the {name} loss became {value} in step {number}")
        self.pending += values

    def close_row(self, step: int) -> dict[str, float]:
        """Turn the steps since the last row into a row that ends with ``step`` and return it."""
        self.read(step)
        means = [sum(column) / len(self.pending) for column in zip(*self.pending, strict=True)]
        self.rows.append([float(step), *means])
        self.pending = []
        return dict(zip(LOSS_NAMES, means, strict=True))

    def json_lines(self) -> str:
        """Return one JSON object a row: ``step`` and each loss."""
        rows = (dict(zip(("step", *LOSS_NAMES), (int(row[0]), *row[1:]), strict=True)) for row in self.rows)
        return "".join(json.dumps(row) + "\n" for row in rows)
