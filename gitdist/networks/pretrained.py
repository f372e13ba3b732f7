"""Files of pretrained weights: safetensors, or what ``torch.save`` wrote, by the names of the network's library.

A file of torch is a state dict, or has one under "state_dict" or "model"; the prefix "module." of DataParallel is
removed. The last layer's weights are not used: the head of a trial is always new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load, save
from torch import Tensor, nn

from gitdist.disk import write_atomic
from gitdist.errors import DataError, SpecError, first_line
from gitdist.input_file import foreign_content, open_input, read_input
from gitdist.networks.heads import head_name
from gitdist.store.artifact import checksum
from gitdist.torch_file import TorchFileError, read_torch_file

_TORCH_FILES = (b"PK", b"\x80")  # a zip archive, or a pickle of torch before 1.6
_DIGITS = 32  # of a hash
_WRAPPERS = ("state_dict", "model")
_DATA_PARALLEL = "module."
_COUNT = "num_batches_tracked"  # of batch norm; files of torch before 0.4.1 lack it

Weights = dict[str, Tensor]
Conversion = Callable[[Weights, nn.Module], Weights]


@dataclass(frozen=True)
class WeightsFile:
    """A file of pretrained weights and the hash of its content."""

    path: Path
    digest: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Hash the content of a file.

        Raises:
            SpecError: it cannot be read.
        """
        try:
            with open_input(path):
                return cls(path, checksum(path)[:_DIGITS])
        except DataError as error:
            raise SpecError(f"trial.pretrained: {error}") from None


def load_backbone(model: nn.Module, path: Path, network: str, convert: Conversion) -> None:
    """Load the weights of a file into a classifier, except those of its head.

    Weights of a first convolution of three channels are summed for images of one channel, which gives the outputs of
    grey images made RGB.

    Args:
        model: the classifier.
        path: of the file.
        network: the name of the network, for messages.
        convert: the library's conversion of weights that do not fit as they are.

    Raises:
        SpecError: the file cannot be read, or its weights are not those of the network; the message names the first
            one that is missing, unknown, of another shape or not finite.
    """
    head = f"{head_name(model)}."
    weights = read_weights(path)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(head)}

    def fitted(weights: Weights) -> Weights:
        return {
            name: _for_channels(value, own.get(name, value))
            for name, value in weights.items()
            if not name.startswith(head)
        }

    found = fitted(weights)
    problem = _first_difference(found, own)
    if problem is not None:
        try:
            found = fitted(convert(weights, model))
        except Exception as error:  # the weights of another network can raise anything
            problem = f"{problem} ({type(error).__name__}: {first_line(error)})"
        else:
            problem = _first_difference(found, own)
    if problem is not None:
        raise _refusal(path, f"must have the weights of {network}", problem)
    model.load_state_dict({**model.state_dict(), **found})


def read_weights(path: Path) -> Weights:
    """Return the named tensors in a file, on the CPU; no code in it runs.

    Raises:
        SpecError: it cannot be read, or holds something else.
    """
    try:
        content = read_input(path)
        state = read_torch_file(content) if content.startswith(_TORCH_FILES) else _read_safetensors(content)
    except DataError as error:
        raise SpecError(f"trial.pretrained: {error}") from None
    except TorchFileError as error:
        raise _refusal(path, "must be a file of safetensors or torch", str(error)) from error
    for name in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state:
        raise _refusal(path, "must hold named tensors", f"it holds {type(state).__name__}")
    if all(isinstance(name, str) and name.startswith(_DATA_PARALLEL) for name in state):
        state = {name.removeprefix(_DATA_PARALLEL): value for name, value in state.items()}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _refusal(path, "must hold named tensors", f"{name!r} is of type {type(value).__name__}")
        if not value.isfinite().all():
            raise _refusal(path, "must hold finite numbers", f"{name} has NaN or infinite values")
    return state


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors."""
    write_atomic(path, to_safetensors(weights))


def to_safetensors(weights: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return named tensors as the content of a safetensors file; tensors that share memory are written one by one."""
    return save({name: value.clone().contiguous() for name, value in weights.items()}, metadata)


def _read_safetensors(content: bytes) -> Any:
    if foreign := foreign_content(BytesIO(content)):
        raise TorchFileError(foreign)
    try:
        return load(content)
    except Exception as error:  # another file can raise anything
        raise TorchFileError(f"safetensors cannot read it: {first_line(error)}") from error


def _for_channels(weight: Tensor, own: Tensor) -> Tensor:
    is_stem = own.ndim == weight.ndim == 4 and (own.shape[1], weight.shape[1]) == (1, 3)
    return weight.sum(1, keepdim=True) if is_stem else weight


def _first_difference(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    for name, value in own.items():
        if name not in weights and not name.endswith(_COUNT):
            return f"{name} is missing"
        if name in weights and weights[name].shape != value.shape:
            return f"{name} has the shape {list(weights[name].shape)}, not {list(value.shape)}"
    unknown = next((name for name in weights if name not in own), None)
    return None if unknown is None else f"{unknown} is unknown"


def _refusal(path: Path, rule: str, found: str) -> SpecError:
    return SpecError(f"trial.pretrained {rule}, but in {path} {found}; use a file of this network's weights")
