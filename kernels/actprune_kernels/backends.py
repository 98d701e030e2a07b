"""Which implementation of a kernel runs: chosen by device, or by name."""

from importlib import import_module
from types import ModuleType

import torch

BACKENDS = ("naive", "cpu")
"""`naive` is the definition, plain PyTorch on any device; `cpu` is the fast path of the CPU."""


def check_backend(name: str) -> None:
    """Raise ValueError unless `name` is "auto" or one of BACKENDS."""
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend: expected one of auto, {', '.join(BACKENDS)}, got {name!r}")


def resolve(name: str, device: torch.device) -> str:
    """The backend that `name` means on `device`; raises ValueError where there is none."""
    check_backend(name)
    if name == "auto" and device.type != "cpu":
        raise ValueError(
            f"backend: no kernel for device {device.type!r} in this version; "
            "backend=naive runs plain PyTorch there"
        )
    if name == "cpu" and device.type != "cpu":
        raise ValueError(f"backend: cpu takes tensors on the CPU, got one on {device}")
    return "cpu" if name == "auto" else name


def kernels(folder: str, backend: str, device: torch.device) -> ModuleType:
    """The module actprune_kernels.<folder>.<backend> that serves `device`."""
    return import_module(f"actprune_kernels.{folder}.{resolve(backend, device)}")
