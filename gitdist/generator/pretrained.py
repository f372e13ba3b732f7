"""Imported MUNIT weights: our file format, and the checkpoints that GIT's authors published.

ours     FILE.safetensors: the auto-encoder's weights, float32; header {"gitdist": {"format": 1, "dim": 64, ...,
         "checksum"}}. The format has no checksums, so the header has one of all weights; older files lack it.
theirs   {"a": state, "b": state, ...}, saved by torch: "a" is the auto-encoder that is used, other entries are not
         read. A state alone is read too, and the prefix "module." of DataParallel is removed. The running statistics of
         the decoder's adaptive norms are not used, as in the authors' code.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gitdist.device import Compute
from gitdist.disk import write_atomic
from gitdist.errors import DataError, SpecError, first_line
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.munit.networks import STYLE_DOWNSAMPLINGS, AutoEncoder, first_non_finite, load_auto_encoder
from gitdist.input_file import foreign_content, open_input, read_input
from gitdist.spec import MunitSpec
from gitdist.spec.base import Positive, Spec
from gitdist.torch_file import TorchFileError, read_torch_file

_HEADER, _CHECKSUM = "gitdist", "checksum"
_UNUSED = re.compile(r"dec\.model\.0\.model\.\d+\.model\.[01]\.norm\.(running_(mean|var)|num_batches_tracked)")
_DATA_PARALLEL = "module."
_FIRST_WEIGHT = "enc_content.model.0.conv.weight"  # every auto-encoder's state has it

Weights = dict[str, Tensor]


class Architecture(Spec):
    """What determines the shapes of an auto-encoder's weights; the fields are those of ``MunitSpec``."""

    format: Literal[1] = 1
    image_channels: Positive
    dim: Positive
    mlp_dim: Positive
    style_dim: Positive
    num_downsample: Annotated[int, Field(ge=0)]
    num_res: Positive

    def describe(self) -> str:
        """Return the fields as text."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump(exclude={"format"}).items())

    def auto_encoder(self) -> AutoEncoder:
        """Return an auto-encoder of these shapes with uninitialised weights."""
        fields = self.model_dump(exclude={"format", "image_channels"})
        return AutoEncoder(MunitSpec(**fields), self.image_channels)

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each of the auto-encoder's weights."""
        with torch.device("meta"):  # without memory
            return {name: weight.shape for name, weight in self.auto_encoder().state_dict().items()}


def save_pretrained(path: Path, architecture: Architecture, weights: Weights) -> None:
    """Write weights, by the names of ``AutoEncoder``, and their architecture."""
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    header = architecture.model_dump() | {_CHECKSUM: _checksum(contiguous)}
    write_atomic(path, save(contiguous, {_HEADER: json.dumps(header, separators=(",", ":"))}))


def save_munit(spec: MunitSpec, image_channels: int, artifact: Path, path: Path) -> None:
    """Write the weights in a trained generator's artifact to a file; see ``save_pretrained``."""
    fields = Architecture.model_fields.keys() & MunitSpec.model_fields.keys()
    architecture = Architecture(image_channels=image_channels, **spec.model_dump(include=fields))
    save_pretrained(path, architecture, load_auto_encoder(spec, image_channels, artifact).state_dict())


def read_pretrained(path: Path, image_shape: tuple[int, int, int]) -> tuple[Architecture, Weights]:
    """Return architecture and weights, by the names of ``AutoEncoder``, of a file that ``save_pretrained`` wrote.

    Raises:
        DataError: the file is missing, unreadable or not a file.
        SpecError: the file is damaged or another one, a weight is not finite, or it was trained on images that
            ``image_shape`` (C, H, W) does not fit.
    """
    try:
        with open_input(path) as content:
            if foreign := foreign_content(content):
                raise ValueError(foreign)
            content.seek(0)
            if content.read(2) == b"PK":
                raise ValueError("it seems to be a checkpoint, which must be imported")
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                checksum = header.pop(_CHECKSUM, None)
                architecture = _architecture(header)
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if max(architecture.num_res, architecture.num_downsample) > len(weights):
            raise ValueError(f"it has {len(weights)} weights, too few for {architecture.describe()}")
        shapes = {name: weight.shape for name, weight in weights.items()}
        if different := {name for name, _ in shapes.items() ^ architecture.shapes().items()}:
            raise ValueError(f"{min(different)} is not as in an auto-encoder of {architecture.describe()}")
        if checksum not in (None, _checksum(weights)):
            raise ValueError("it is damaged: the checksum of its weights is wrong")
        if broken := first_non_finite(weights):
            raise ValueError(f"{broken} contains NaN or infinite values")
    except DataError:
        raise
    except Exception as error:  # another file can raise anything
        reason = first_line(error) if type(error) is ValueError else f"{type(error).__name__}: {first_line(error)}"
        message = f"generator.path must be an imported generator, but {path} is not one ({reason})"
        raise SpecError(f"{message}; import the checkpoint again") from error
    channels, height, width = image_shape
    if channels != architecture.image_channels:
        needed = f"needs images with {architecture.image_channels} channel(s)"
        raise SpecError(f"generator.path {needed}, but the data set's have {channels}; use another generator")
    multiple = 2**architecture.num_downsample
    if height % multiple or width % multiple:
        needed = f"needs images whose sides are multiples of {multiple}"
        raise SpecError(f"generator.path {needed}, but the data set's are {height}x{width}; resize them")
    return architecture, weights


def load_pretrained(
    path: Path, image_shape: tuple[int, int, int], compute: Compute, compiled_batch: int | None = None
) -> MunitGenerator:
    """Return the generator in a file that ``save_pretrained`` wrote; ``compiled_batch`` as of ``MunitGenerator``.

    Raises:
        DataError, SpecError: as ``read_pretrained``.
    """
    architecture, weights = read_pretrained(path, image_shape)
    auto_encoder = architecture.auto_encoder()
    auto_encoder.load_state_dict(weights)
    return MunitGenerator(auto_encoder, architecture.style_dim, compute, compiled_batch)


def pretrained_digest(path: Path) -> str:
    """Return the hash of an imported generator's file; raise SpecError if it cannot be read."""
    try:
        return _hash(read_input(path))
    except DataError as error:
        raise SpecError(f"generator.path: {error}") from None


def copy_pretrained(path: Path, digest: str, target: Path) -> None:
    """Copy the file of ``pretrained_digest``; raise SpecError if it has changed since."""
    content = read_input(path)
    if _hash(content) != digest:
        raise SpecError(f"generator.path must not change while it is copied, but {path} changed; run again")
    write_atomic(target, content)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _architecture(header: object) -> Architecture:
    try:
        return Architecture.model_validate(header)
    except ValidationError as error:
        raise ValueError("its header does not describe an auto-encoder") from error


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """Return the hash of names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_checkpoint(path: Path) -> tuple[Architecture, Weights]:
    """Return architecture and float32 weights, by the names of ``AutoEncoder``, of a published checkpoint.

    No code in the file is executed.

    Raises:
        DataError: the file cannot be read, is damaged or has another layout; the message names the first weight that is
            missing, unknown, of another shape or not finite.
    """
    state = _read_state(path)
    architecture = _infer_architecture(state, path)
    names = _published_names(architecture)
    known = {name for name in state if _UNUSED.fullmatch(name)} | set(names.values())
    for problem, found in (("unknown", set(state) - known), ("missing", known - set(state))):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise _refusal(path, f"{min(found)}{more} is {problem} in an auto-encoder of {architecture.describe()}")
    try:
        shapes = architecture.shapes()
    except (RuntimeError, ValueError) as error:  # sizes that overflow
        raise _refusal(path, f"no auto-encoder can have {architecture.describe()}") from error
    weights = {}
    for own, expected in shapes.items():
        name = names[own]
        weight = state[name]
        if weight.numel() != expected.numel() or weight.shape != expected[: weight.ndim]:
            sizes = f"the shape {list(weight.shape)}, not {list(expected)}"
            raise _refusal(path, f"{name} has {sizes} of {architecture.describe()}")
        weights[own] = weight.float().reshape(expected)
        if not weights[own].isfinite().all():  # float64 can exceed the range of float32 too
            raise _refusal(path, f"{name} contains NaN or infinite values")
    return architecture, weights


def _read_state(path: Path) -> Weights:
    """Return the auto-encoder's entries in a file, by their published names."""
    try:
        content = read_torch_file(read_input(path))
    except TorchFileError as error:
        raise _refusal(path, str(error)) from error
    state = content.get("a", content) if isinstance(content, dict) else None
    if isinstance(state, dict) and all(isinstance(name, str) and name.startswith(_DATA_PARALLEL) for name in state):
        state = {name.removeprefix(_DATA_PARALLEL): value for name, value in state.items()}
    if not isinstance(state, dict) or ("a" not in content and _FIRST_WEIGHT not in state):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise _refusal(path, f"it contains {found or 'nothing'}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _refusal(path, f"{name!r} is of type {type(value).__name__}, not a named tensor")
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            kind = ", ".join(
                str(part).removeprefix("torch.") for part in (value.dtype, value.layout, value.device.type)
            )
            raise _refusal(path, f"{name} is not a plain tensor of real numbers but of {kind}")
        if value.nbytes > value.untyped_storage().nbytes():
            raise _refusal(path, f"{name} of shape {list(value.shape)} repeats its values, which weights do not")
    return state


def _infer_architecture(state: Mapping[str, Tensor], path: Path) -> Architecture:
    """Return the architecture of the first layers' shapes and the numbers of layers."""

    def shape(name: str, ndim: int) -> torch.Size:
        weight = state.get(name)
        if weight is None or weight.ndim != ndim or not weight.numel():
            raise _refusal(path, f"{name} is {'missing' if weight is None else f'of shape {list(weight.shape)}'}")
        return weight.shape

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in state)

    dim, image_channels, *_ = shape(_FIRST_WEIGHT, 4)
    mlp_dim, style_dim = shape("mlp.model.0.fc.weight", 2)
    num_convolutions = count(r"enc_content\.model\.(\d+)\.conv\.weight")
    num_res = count(rf"enc_content\.model\.{num_convolutions}\.model\.(\d+)\.model\.0\.conv\.weight")
    if not num_res:
        raise _refusal(path, f"enc_content.model.{num_convolutions} has no residual block")
    return Architecture(
        image_channels=image_channels,
        dim=dim,
        mlp_dim=mlp_dim,
        style_dim=style_dim,
        num_downsample=num_convolutions - 1,
        num_res=num_res,
    )


def _published_names(architecture: Architecture) -> dict[str, str]:
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
    for own, theirs in (("content_encoder", f"enc_content.model.{depth + 1}"), ("decoder", "dec.model.0")):
        layers |= {
            f"{own}.blocks.{i}.convolutions.{j}": f"{theirs}.model.{i}.model.{j}.conv" for i in blocks for j in (0, 1)
        }
    names = {f"{own}.{part}": f"{theirs}.{part}" for own, theirs in layers.items() for part in ("weight", "bias")}
    for i in range(depth):
        names[f"decoder.upsamplings.{i}.gain"] = f"dec.model.{2 * i + 2}.norm.gamma"
        names[f"decoder.upsamplings.{i}.bias"] = f"dec.model.{2 * i + 2}.norm.beta"
    return names


def _refusal(path: Path, found: str) -> DataError:
    in_one_line = " ".join(found.split())
    rule = "a checkpoint must be a torch file with {'a': state of an auto-encoder, ...} or such a state"
    return DataError(f"{rule}, but in {path} {in_one_line}; use a generator's file as published")
