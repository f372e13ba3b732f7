"""The driver's machine while it works: MLflow's own system metrics, measured by its monitors, kept by the study.

MLflow's SystemMetricsMonitor would write to the run by itself, on a thread of its own, whoever owns the study; what it
could not write would be lost. Its monitors only measure: what they find goes into the study's file like all else.
"""

import logging
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

PREFIX = "system/"  # MLflow's UI shows these metrics of a run apart


class Machine:
    """Measures the processors, the memory and, where nvidia-ml-py is installed, the NVIDIA GPUs of this machine."""

    def __init__(self) -> None:
        """Find out what there is to measure."""
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # a GPU need not know all figures
        kinds: list[Any] = [CPUMonitor, GPUMonitor]
        self._monitors: list[Any] = []
        for kind in kinds:
            with suppress(ImportError, RuntimeError):  # no such GPU here, or nothing that asks it
                self._monitors.append(kind())

    def figures(self) -> dict[str, float]:
        """Return percentages, megabytes and watts under MLflow's names.

        The processors' is of the time since the same thread's last call: its first says nothing.
        """
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found
