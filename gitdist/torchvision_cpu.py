"""The only module that imports torchvision: its build for CUDA cannot load its operators beside a CPU build of torch.

Declaring two of these operators is enough for torchvision to import. Its transforms, data sets and models then work;
nms and torchvision.io do not.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

_operators: Any = torch.ops


def _declare_missing_operators() -> None:
    """Declare the operators that importing torchvision looks up, unless its compiled ones load."""
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
