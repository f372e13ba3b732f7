"""MLflow's system metrics of the driver's machine, for the study's own file.

MLflow's SystemMetricsMonitor would write to the run itself, on its own thread, whoever owns the study, and would lose
what it could not write. So only its monitors are used, which measure.
"""

import logging
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

PREFIX = "system/"  # MLflow's UI shows these metrics on a page of their own


class SystemMetrics:
    """Measures the CPUs, the memory and, if nvidia-ml-py is installed, the NVIDIA GPUs of this machine."""

    def __init__(self) -> None:
        """Find out what can be measured."""
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # a GPU need not report every metric
        monitors: list[Any] = [CPUMonitor, GPUMonitor]
        self._monitors: list[Any] = []
        for monitor in monitors:
            with suppress(ImportError, RuntimeError):  # there is no GPU, or its package is not installed
                self._monitors.append(monitor())

    def measure(self) -> dict[str, float]:
        """Return percentages, megabytes and watts under MLflow's names.

        CPU usage is that since the same thread's last call; the first call's is meaningless.
        """
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found
