"""Where and in which precision networks run: device, autocast type, threads, share of a GPU's memory."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from gitdist.limits import allotted_memory, usable_cpus

_CONTEXT_BYTES = 2**29  # allowance for the CUDA context of a process, not measured


@cache
def has_bf16_units() -> bool:
    """Return whether this CPU multiplies bf16 natively (AMX or AVX512-BF16 on Linux)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device with the precision its networks run in.

    ``bf16`` means autocast: weights stay float32. On a CPU with bf16 units it was 1.6 to 2.6 times as fast as float32,
    and channels_last up to 1.9 times on top.
    """

    device: torch.device
    bf16: bool

    @classmethod
    def resolve(cls, precision: str = "auto", device: str | torch.device | None = None) -> "Compute":
        """Choose the device (a visible GPU, else the CPU) and whether ``precision`` means bf16 there."""
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(device)
        match precision:
            case "auto":
                bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_bf16_units()
            case "bf16" | "float32":
                bf16 = precision == "bf16"
            case unknown:
                raise ValueError(f"precision must be auto, bf16 or float32, but it is {unknown!r}")
        return cls(device=device, bf16=bf16)

    @property
    def precision(self) -> str:
        """The precision's name, ``bf16`` or ``float32``."""
        return "bf16" if self.bf16 else "float32"

    @property
    def name(self) -> str:
        """What an output depends on besides weights and inputs: device (of a GPU its model), precision, torch."""
        card = f" {torch.cuda.get_device_name(self.device)}" if self.device.type == "cuda" else ""
        return f"{self.device.type}{card} {self.precision}, torch {torch.__version__}"

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def set_threads(num_cpus: float) -> int:
    """Limit torch to a share of the CPUs (at least one thread) and return the number of threads.

    Ray only counts CPUs; without this limit every process would use all of them.
    """
    threads = max(1, min(int(num_cpus), usable_cpus()))
    torch.set_num_threads(threads)
    return threads


def limit_to_share(num_cpus: float, num_gpus: float) -> None:
    """Limit this process to its share of the machine: threads, and the part of a GPU's memory that tensors may take.

    Ray only counts shares; without this limit one process could take the GPU memory of another. What CUDA and its
    libraries allocate is not limited. Call it before anything is allocated.

    Args:
        num_cpus: see ``set_threads``.
        num_gpus: below 1, the share of one GPU's memory; 1 or more = all memory of its GPUs.
    """
    set_threads(num_cpus)
    if 0 < num_gpus < 1 and torch.cuda.is_available():
        memory_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(tensor_fraction(num_gpus, memory_bytes))


def process_memory(device: torch.device) -> int:
    """Return the bytes of a device's memory that are this process's share, after ``limit_to_share``.

    On a CPU that is a part of what is allotted here, as large as the part of the CPUs that torch has threads for.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return int(total * torch.cuda.get_per_process_memory_fraction(device))
    return int(allotted_memory() * min(1.0, torch.get_num_threads() / usable_cpus()))


def tensor_fraction(num_gpus: float, memory_bytes: int) -> float:
    """Return the part of a GPU's memory that the tensors of a process with a share of it may take.

    It is the share without half a GiB for the CUDA context, but at least half of the share.
    """
    return max(num_gpus - _CONTEXT_BYTES / memory_bytes, num_gpus / 2)
