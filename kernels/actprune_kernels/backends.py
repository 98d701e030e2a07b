"""Which implementation of a kernel runs: chosen by device and dtype, or by name.

What a backend can do is declared once, below; the `__init__` of each folder of kernels lists the
backends that it has, in the order in which `auto` tries them.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

_INSTALL = {
    "triton": "pip install 'actprune[cuda]'",
    "cupy": "pip install 'actprune[cuda]', or cupy-cuda12x for CUDA 12",
}


@dataclass(frozen=True)
class Backend:
    """One way to compute: a module of this name in each folder of kernels that has it."""

    name: str
    device: str | None = None
    """The type of device that it serves; None: any."""
    dtypes: tuple[torch.dtype, ...] = ()
    """What it takes; none named: all."""
    packages: tuple[str, ...] = ()
    """What must be installed."""
    interpreted: bool = False
    """Whether TRITON_INTERPRET=1 runs it on the CPU."""

    def takes(self, dtype: torch.dtype) -> bool:
        return not self.dtypes or dtype in self.dtypes

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


NAIVE = Backend("naive")
"""The definition: plain PyTorch on any device."""
CPU = Backend("cpu", "cpu")
"""The fast path of the CPU."""
_TENSOR_CORES = torch.float32, torch.float16, torch.bfloat16
TRITON = Backend("triton", "cuda", _TENSOR_CORES, ("triton",), interpreted=True)
"""Our kernels on CUDA."""
CUSPARSE = Backend("cusparse", "cuda", (torch.float32, torch.float64), ("triton", "cupy"))
"""cuSPARSE's product through CuPy, of what our kernels compress."""
BACKENDS = {each.name: each for each in (NAIVE, CPU, TRITON, CUSPARSE)}
LEAST_CAPABILITY = (8, 0)


def interpreted() -> bool:
    """Whether Triton kernels run on the CPU, by TRITON_INTERPRET=1: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def resolve(folder: str, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that `name` means for the kernels of `folder`; raises ValueError where none is.

    On CUDA, `auto` is the first listed backend that takes the dtype. Nothing falls back by itself:
    what is missing is an error that names the way out.
    """
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend: expected one of auto, {', '.join(BACKENDS)}, got {name!r}")
    has = {each.name: each for each in import_module(f"actprune_kernels.{folder}").HAS}
    if name == "auto":
        name = _automatic(has.values(), device, dtype)
    if name not in has:
        raise ValueError(f"backend: {folder} has the backends {', '.join(has)}; got {name!r}")
    chosen = has[name]
    if chosen.device == "cpu" and device.type != "cpu":
        raise ValueError(f"backend: {name} takes tensors on the CPU, got one on {device}")
    if chosen.device == "cuda":
        _check_cuda(chosen, device)
        if not chosen.takes(dtype):
            *first, last = (str(taken).removeprefix("torch.") for taken in chosen.dtypes)
            # a fast one that takes the dtype, else the definition
            fast = (one.name for one in has.values() if one.device == "cuda" and one.takes(dtype))
            raise ValueError(
                f"backend: {name} takes {', '.join(first)} and {last}, got {dtype}; "
                f"use backend={next(fast, NAIVE.name)}"
            )
    for package in chosen.missing():
        way = f"backend: {name} needs the package {package}: {_INSTALL[package]}"
        raise ValueError(f"{way}; backend=naive runs plain PyTorch")
    return name


@lru_cache(maxsize=256)
def kernels(folder: str, backend: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The module actprune_kernels.<folder>.<backend> that serves `device` and `dtype`."""
    return import_module(f"actprune_kernels.{folder}.{resolve(folder, backend, device, dtype)}")


def of_any_dtype(folder: str, device: torch.device, name: str = "auto") -> ModuleType:
    """The module of `folder` that serves `device`, whatever the dtype.

    name: the backend of the kernels beside it; `naive` is the definition everywhere, and serves
    devices without kernels of their own. Raises ValueError where CUDA lacks what Triton needs.
    """
    if name not in ("naive", "triton"):
        name = {"cpu": "cpu", "cuda": "triton"}.get(device.type, "naive")
    return kernels(folder, name, device, torch.float32)


def _automatic(has: Iterable[Backend], device: torch.device, dtype: torch.dtype) -> str:
    serving = [each for each in has if each.device == device.type]
    if not serving:
        raise ValueError(
            f"backend: no kernel for device {device.type!r}; backend=naive runs plain PyTorch there"
        )
    return next((each.name for each in serving if each.takes(dtype)), serving[0].name)


def _check_cuda(backend: Backend, device: torch.device) -> None:
    on_cpu = backend.interpreted and device.type == "cpu" and interpreted()
    if not (device.type in ("cuda", "meta") or on_cpu):
        raise ValueError(f"backend: {backend.name} takes tensors on CUDA, got one on {device}")
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            raise ValueError(
                f"backend: {backend.name} needs compute capability 8.0 or more, {device} has "
                f"{capability[0]}.{capability[1]}; backend=naive runs plain PyTorch there"
            )
