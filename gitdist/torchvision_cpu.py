"""The one place that imports torchvision: its registry build is linked against CUDA and dies beside a CPU torch.

Such a build cannot load its compiled operators; torchvision only needs two of them to be declared in order to import.
Transforms, datasets and models work then; nms itself and torchvision.io do not.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

_operators: Any = torch.ops


def _declare_missing_operators() -> None:
    """Declare the operators that importing torchvision looks up, unless its own compiled ones load."""
    spec = importlib.util.find_spec("torchvision")
    if torch.version.cuda is not None or spec is None or spec.origin is None:
        return
    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        try:
            _operators.load_library(str(compiled))
            return
        except OSError:
            continue
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declare_missing_operators()

import torchvision  # noqa: E402

__all__ = ["torchvision"]
