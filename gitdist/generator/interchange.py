"""Reads the checkpoints that the authors of GIT published into the names and shapes of our own networks.

    {"a": state, "b": state, ...}, saved by torch; "a" is the auto-encoder that is used, other entries are not read.
    A state alone is read too, and the prefix "module." of DataParallel is taken off.

    theirs                                                   ours
    enc_style.model.{0..4}.conv, enc_style.model.6           style_encoder.convolutions.{0..4}, style_encoder.output
    enc_content.model.{0..d}.conv                            content_encoder.convolutions.{0..d}
    enc_content.model.{d + 1}.model.{i}.model.{0, 1}.conv    content_encoder.blocks.{i}.convolutions.{0, 1}
    dec.model.0.model.{i}.model.{0, 1}.conv                  decoder.blocks.{i}.convolutions.{0, 1}
    dec.model.{2, 4, ..., 2d}.conv, .norm.{gamma, beta}      decoder.upsamplings.{0..d - 1}.convolution, .gain, .bias
    dec.model.{2d + 1}.conv                                  decoder.output
    mlp.model.{0, 1, 2}.fc                                   mlp.layers.{0, 1, 2}

The running statistics in the decoder's adaptive norms are never read, neither there nor here. d = num_downsample.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gitdist.errors import DataError
from gitdist.generator.munit import STYLE_DOWNSAMPLINGS
from gitdist.generator.pretrained import Architecture
from gitdist.torch_file import TorchFileError, read_torch_file

_UNUSED = re.compile(r"dec\.model\.0\.model\.\d+\.model\.[01]\.norm\.(running_(mean|var)|num_batches_tracked)")
_DATA_PARALLEL = "module."
_FIRST = "enc_content.model.0.conv.weight"  # every auto-encoder's state has it


def read_checkpoint(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Return what a published checkpoint holds: its architecture, and float32 weights by the names of ``AutoEncoder``.

    Nothing in the file is executed.

    Raises:
        DataError: the file cannot be read or is damaged, or is not of the published form; the message names the first
            weight that is missing, unknown, of another shape or not finite.
    """
    state = _read_state(path)
    architecture = _infer(state, path)
    names = _names(architecture)
    known = {name for name in state if _UNUSED.fullmatch(name)} | set(names.values())
    for problem, found in (("unknown", set(state) - known), ("missing", known - set(state))):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise _refusal(path, f"{min(found)}{more} is {problem} in an auto-encoder of {architecture.told()}")
    weights = {}
    for own, expected in architecture.shapes().items():
        weight = state[names[own]]
        if weight.numel() != expected.numel() or weight.shape != expected[: weight.ndim]:
            raise _refusal(
                path, f"{names[own]} has the shape {list(weight.shape)}, not {list(expected)} of {architecture.told()}"
            )
        weights[own] = weight.float().reshape(expected)
        if not weights[own].isfinite().all():  # float64 can leave the range of float32 too
            raise _refusal(path, f"{names[own]} holds NaN or infinite values")
    return architecture, weights


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        found = read_torch_file(path.read_bytes())
    except OSError as error:
        raise _refusal(path, f"the file cannot be opened ({error.strerror})") from error
    except TorchFileError as error:
        raise _refusal(path, str(error)) from error
    state = _find_state(found)
    if state is None:
        held = ", ".join(map(str, list(found)[:5])) if isinstance(found, dict) else type(found).__name__
        raise _refusal(path, f"it holds {held or 'nothing'}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _refusal(path, f"{name!r} is of type {type(value).__name__}, not a named tensor")
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            raise _refusal(path, f"{name} is not a plain tensor of real numbers but of {_described(value)}")
    return state


def _find_state(found: Any) -> dict[Any, Any] | None:
    """Return the auto-encoder's entries in what a file holds, by their published names; None if there are none."""
    if not isinstance(found, dict):
        return None
    state = found.get("a", found)
    if not isinstance(state, dict):
        return None
    if all(isinstance(name, str) and name.startswith(_DATA_PARALLEL) for name in state):
        state = {name.removeprefix(_DATA_PARALLEL): value for name, value in state.items()}
    return state if "a" in found or _FIRST in state else None


def _described(value: Tensor) -> str:
    parts = (value.dtype, value.layout, value.device.type)
    return ", ".join(str(part).removeprefix("torch.") for part in parts)


def _infer(state: dict[str, Tensor], path: Path) -> Architecture:
    """Return the architecture that the first layers' shapes and the numbers of layers tell."""
    first, narrow = _shape(state, _FIRST, 4, path), "mlp.model.0.fc.weight"
    mlp_dim, style_dim = _shape(state, narrow, 2, path)
    num_convolutions = _count(state, r"enc_content\.model\.(\d+)\.conv\.weight")
    num_res = _count(state, rf"enc_content\.model\.{num_convolutions}\.model\.(\d+)\.model\.0\.conv\.weight")
    if not num_res:
        raise _refusal(path, f"enc_content.model.{num_convolutions} has no residual block")
    return Architecture(
        image_channels=first[1],
        dim=first[0],
        mlp_dim=mlp_dim,
        style_dim=style_dim,
        num_downsample=num_convolutions - 1,
        num_res=num_res,
    )


def _shape(state: dict[str, Tensor], name: str, ndim: int, path: Path) -> torch.Size:
    weight = state.get(name)
    if weight is None or weight.ndim != ndim or not weight.numel():
        raise _refusal(path, f"{name} is {'missing' if weight is None else f'of shape {list(weight.shape)}'}")
    return weight.shape


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _names(architecture: Architecture) -> dict[str, str]:
    """Return the published name of each of our weights."""
    depth, blocks = architecture.num_downsample, range(architecture.num_res)
    layers = {
        **{f"style_encoder.convolutions.{i}": f"enc_style.model.{i}.conv" for i in range(STYLE_DOWNSAMPLINGS + 1)},
        "style_encoder.output": f"enc_style.model.{STYLE_DOWNSAMPLINGS + 2}",
        **{f"content_encoder.convolutions.{i}": f"enc_content.model.{i}.conv" for i in range(depth + 1)},
        **{f"decoder.upsamplings.{i}.convolution": f"dec.model.{2 * i + 2}.conv" for i in range(depth)},
        "decoder.output": f"dec.model.{2 * depth + 1}.conv",
        **{f"mlp.layers.{i}": f"mlp.model.{i}.fc" for i in range(3)},
    }
    for room, place in (("content_encoder", f"enc_content.model.{depth + 1}"), ("decoder", "dec.model.0")):
        layers |= {
            f"{room}.blocks.{i}.convolutions.{j}": f"{place}.model.{i}.model.{j}.conv" for i in blocks for j in (0, 1)
        }
    names = {f"{own}.{part}": f"{theirs}.{part}" for own, theirs in layers.items() for part in ("weight", "bias")}
    for i in range(depth):
        names |= {
            f"decoder.upsamplings.{i}.gain": f"dec.model.{2 * i + 2}.norm.gamma",
            f"decoder.upsamplings.{i}.bias": f"dec.model.{2 * i + 2}.norm.beta",
        }
    return names


def _refusal(path: Path, found: str) -> DataError:
    in_one_line = " ".join(found.split())
    return DataError(
        "a checkpoint to import must be a torch file with the weights of an auto-encoder, {'a': state, ...} or a state "
        f"alone, but in {path} {in_one_line}; take a generator's file as the authors published it"
    )
