"""Reads the checkpoints that the authors of GIT published into the names and shapes of our own networks.

    {"a": state, "b": state}, pickled by torch; "a" is the auto-encoder that is used

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

import torch
from torch import Tensor

from gitdist.errors import DataError, first_line
from gitdist.generator.munit import STYLE_DOWNSAMPLINGS
from gitdist.generator.pretrained import Architecture

_UNUSED = re.compile(r"dec\.model\.0\.model\.\d+\.model\.[01]\.norm\.running_(mean|var)")


def read_checkpoint(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Return what a published checkpoint holds: its architecture, and float32 weights by the names of ``AutoEncoder``.

    Nothing in the file is executed.

    Raises:
        DataError: the file cannot be read, or is not of the published form; the message names the first weight that is
            missing, unknown or of another shape.
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
    return architecture, weights


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to ask for
        raise _refusal(path, f"it cannot be read as one ({type(error).__name__}: {first_line(error)})") from error
    state = found.get("a") if isinstance(found, dict) and set(found) <= {"a", "b"} else None
    if not isinstance(state, dict):
        held = ", ".join(map(str, list(found)[:5])) if isinstance(found, dict) else type(found).__name__
        raise _refusal(path, f"it holds {held or 'nothing'}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _refusal(path, f"{name!r} is of type {type(value).__name__}, not a named tensor")
    return state


def _infer(state: dict[str, Tensor], path: Path) -> Architecture:
    """Return the architecture that the first layers' shapes and the numbers of layers tell."""
    first, narrow = _shape(state, "enc_content.model.0.conv.weight", 4, path), "mlp.model.0.fc.weight"
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
        f"a checkpoint to import must be a torch file of the published form, {{'a': state, 'b': state}}, but in {path} "
        f"{in_one_line}; take a generator's file as the authors published it"
    )
