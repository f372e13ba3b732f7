"""Measures the driver's machine with MLflow's monitors, for the study's monitor log.

MLflow's SystemMetricsMonitor writes to the run on its own thread, even after another driver has taken over, and loses
what it cannot write. So this module only uses its monitors.
"""

import logging
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

PREFIX = "system/"  # MLflow's UI shows these metrics on a separate page


class SystemMetrics:
    """Measures the CPUs, the memory and, if nvidia-ml-py is installed, the NVIDIA GPUs of this machine."""

    def __init__(self) -> None:
        """Create the monitors that work on this machine."""
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # a GPU need not report every metric
        monitors: list[Any] = [CPUMonitor, GPUMonitor]
        self._monitors: list[Any] = []
        for monitor in monitors:
            with suppress(ImportError, RuntimeError):  # there is no GPU, or its package is not installed
                self._monitors.append(monitor())

    def measure(self) -> dict[str, float]:
        """Return percentages, megabytes and watts under MLflow's names.

        CPU usage is measured since the thread's previous call; in its first call, the value is meaningless.
        """
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return values
