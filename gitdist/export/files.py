"""Model files of a trained classifier: each is complete, and loads without gitdist.

    .pt2          torch.export.load(FILE).module()(images): probabilities
    .onnx         onnxruntime, input ``images``, output ``probabilities``
    .safetensors  weights under the names of the network's library; a .json beside it says what rebuilds the network

The batch is dynamic, and the metadata in each file has the class names.
"""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from gitdist.disk import write_atomic
from gitdist.errors import SpecError, StoreError, first_line
from gitdist.export.model import TrainedModel
from gitdist.networks.heads import CosineHead, head_name
from gitdist.networks.pretrained import to_safetensors

METADATA = "gitdist.json"  # the extra file of a .pt2 with the metadata

_DYNAMIC_BATCH = ({0: Dim("batch", min=1)},)


def check_format(out: Path) -> None:
    """Refuse a file name whose suffix no format has, or a format whose libraries are not installed.

    Raises:
        SpecError: as said.
    """
    if out.suffix not in FORMATS:
        *others, last = FORMATS
        raise SpecError(f"a model file must end in {', '.join(others)} or {last}, but it is {out}; choose one of them")
    if out.suffix == ".onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise SpecError("a .onnx file needs the packages onnx and onnxscript; install gitdist[onnx]")


def model_files(out: Path) -> tuple[Path, ...]:
    """Return the files that ``write_model`` writes for ``out``."""
    return (out, out.with_suffix(".json")) if out.suffix == ".safetensors" else (out,)


def write_model(model: TrainedModel, out: Path) -> None:
    """Write a model file; its suffix, which ``check_format`` has accepted, says the format.

    Raises:
        SpecError: the network cannot be exported.
        DiskError: the disk does not take it; an older file of that name stays.
        StoreError: ``out`` cannot be written.
    """
    contents = FORMATS[out.suffix](model)
    for file, content in zip(model_files(out), contents, strict=True):
        try:
            write_atomic(file, content)
        except OSError as error:
            raise StoreError(f"{file} cannot be written ({error.strerror or error}); choose another path") from None


def _exported_program(model: TrainedModel) -> torch.export.ExportedProgram:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.export.export(model.module, (model.example,), dynamic_shapes=_DYNAMIC_BATCH)
    except Exception as error:  # a network's own code may raise anything
        raise _export_error(model, "torch.export can trace", error) from error


def _pt2(model: TrainedModel) -> tuple[bytes]:
    buffer = io.BytesIO()
    torch.export.save(_exported_program(model), buffer, extra_files={METADATA: json.dumps(model.metadata)})
    return (buffer.getvalue(),)


def _onnx(model: TrainedModel) -> tuple[bytes]:
    traced = _exported_program(model)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of its own code
            program = torch.onnx.export(
                traced,
                (model.example,),
                input_names=["images"],
                output_names=["probabilities"],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # an operator that ONNX lacks
        raise _export_error(model, "torch.onnx can convert", error) from error
    assert program is not None, "dynamo returns a program"
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in model.metadata.items()}
    program.model.metadata_props.update(values)
    return (program.model_proto.SerializeToString(),)


def _safetensors(model: TrainedModel) -> tuple[bytes, bytes]:
    names = {"class_names": json.dumps(list(model.class_names))}
    description = {**model.metadata, **_rebuilding(model)}
    weights = to_safetensors(model.module.classifier.state_dict(), names)
    return weights, json.dumps(description, indent=2).encode()


def _rebuilding(model: TrainedModel) -> Mapping[str, Any]:
    spec, classifier = model.spec, model.module.classifier
    name = head_name(classifier)
    layer = classifier.get_submodule(name)
    kind = {"kind": "cosine", "scale": layer.scale} if isinstance(layer, CosineHead) else {"kind": "linear"}
    return {
        "input": "normalised float32 [N, C, H, W]: (x / 255 - mean) / std",
        "output": "logits, float32 [N, num_classes]",
        "mean": list(model.mean),
        "std": list(model.std),
        "network_options": spec.network_options,
        "head": {"name": name, **kind},
    }


def _export_error(model: TrainedModel, rule: str, error: Exception) -> SpecError:
    return SpecError(
        f"trial.network {model.spec.network} must be a network that {rule}, but it says: "
        f"{first_line(error.__cause__ or error)}; write weights instead, to a .safetensors file"
    )


FORMATS: dict[str, Callable[[TrainedModel], tuple[bytes, ...]]] = {
    ".pt2": _pt2,
    ".onnx": _onnx,
    ".safetensors": _safetensors,
}
"""What makes the contents of ``model_files``, by suffix."""
