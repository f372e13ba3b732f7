"""Where and with what a benchmark was measured."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from gitdist import __version__
from gitdist.device import Compute, has_bf16_units
from gitdist.spec import StudySpec


def describe_machine(spec: StudySpec, threads: int, repeats: int) -> dict[str, Any]:
    """Return versions, cores, devices, threads, precision, date and the resolved study, as JSON values.

    Args:
        spec: the study whose settings are measured.
        threads: of torch in every process that computes.
        repeats: figures behind each median.
    """
    compute = Compute.resolve(spec.trial.precision, spec.resources.trial.device)
    serving = Compute.resolve(spec.stream.precision, spec.resources.server.device)
    on_gpu = "cuda" in (compute.device.type, serving.device.type)
    return {
        "versions": {
            "gitdist": __version__,
            "torch": torch.__version__,
            "ray": ray.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "device": "cuda" if on_gpu else "cpu",
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch_threads": threads,
        "precision": {"trial": compute.precision, "generator": serving.precision},
        "bf16_units": has_bf16_units(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "repeats": repeats,
        "study": spec.model_dump(mode="json", by_alias=True),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
