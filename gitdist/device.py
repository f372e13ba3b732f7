"""Where and in which precision networks run: device, autocast type, memory format, threads."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, assert_never

import torch

Precision = Literal["auto", "bf16", "float32"]

_CONTEXT_BYTES = 2**29  # of a process's CUDA context on its card: an allowance, not measured


@cache
def has_bf16_units() -> bool:
    """Tell whether this processor multiplies bf16 natively (AMX or AVX512-BF16 on Linux)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device with the precision its networks run in.

    ``bf16`` means autocast: weights stay float32. On a processor with bf16 units it came with a factor of 1.6 to
    2.6 over float32, and channels_last with up to 1.9 on top.
    """

    device: torch.device
    bf16: bool

    @classmethod
    def resolve(cls, precision: Precision = "auto", device: str | torch.device | None = None) -> "Compute":
        """Choose the device (a visible GPU, else the processor) and whether ``precision`` means bf16 there."""
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(device)
        match precision:
            case "auto":
                bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_bf16_units()
            case "bf16" | "float32":
                bf16 = precision == "bf16"
            case unknown:
                assert_never(unknown)
        return cls(device=device, bf16=bf16)

    @property
    def precision(self) -> str:
        """The precision's name, ``bf16`` or ``float32``."""
        return "bf16" if self.bf16 else "float32"

    @property
    def name(self) -> str:
        """All of this process that an output depends on besides weights and inputs: device, precision and torch.

        A GPU is named by its card.
        """
        card = f" {torch.cuda.get_device_name(self.device)}" if self.device.type == "cuda" else ""
        return f"{self.device.type}{card} {self.precision}, torch {torch.__version__}"

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def set_threads(num_cpus: float) -> int:
    """Bind torch to a share of the cores (at least one thread) and return the number of threads.

    Ray's fractional CPUs are bookkeeping only; without this every process would take all cores.
    """
    threads = max(1, min(int(num_cpus), os.cpu_count() or 1))
    torch.set_num_threads(threads)
    return threads


def limit_to_share(num_cpus: float, num_gpus: float) -> None:
    """Bind this process to its share of the machine: threads of the processor, and of a card its part of the memory.

    Ray's shares are bookkeeping only: without this, processes on one card could take each other's memory, and the one
    that comes last would fail. Bounded is what torch allocates for tensors, see ``tensor_fraction``; what CUDA and its
    libraries take besides is not. Call it before anything is allocated.

    Args:
        num_cpus: see ``set_threads``.
        num_gpus: below 1, the part of one card's memory that is for this process; more = all of its cards.
    """
    set_threads(num_cpus)
    if 0 < num_gpus < 1 and torch.cuda.is_available():
        card_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(tensor_fraction(num_gpus, card_bytes))


def tensor_fraction(num_gpus: float, card_bytes: int) -> float:
    """Return the part of a card's memory that the tensors of a process may take.

    It is the process's share without half a GiB for its CUDA context, but half of the share at least.

    Args:
        num_gpus: the process's share of one card, below 1.
        card_bytes: memory of the card.
    """
    return max(num_gpus - _CONTEXT_BYTES / card_bytes, num_gpus / 2)
