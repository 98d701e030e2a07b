"""Which implementation of a kernel runs: chosen by device and dtype, or by name."""

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

BACKENDS = ("naive", "cpu", "triton", "cusparse")
"""`naive` is the definition, plain PyTorch on any device; `cpu` is the fast path of the CPU;
`triton` our kernels on CUDA; `cusparse` cuSPARSE's product through CuPy (coo and csr)."""

_INSTALL = {
    "triton": "pip install 'actprune[cuda]'",
    "cupy": "pip install 'actprune[cuda]', or cupy-cuda12x for CUDA 12",
}
_HALF = (torch.float16, torch.bfloat16)


def check_backend(name: str) -> None:
    """Raise ValueError unless `name` is "auto" or one of BACKENDS."""
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend: expected one of auto, {', '.join(BACKENDS)}, got {name!r}")


def interpreted() -> bool:
    """Whether Triton kernels run on the CPU, by TRITON_INTERPRET=1: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def resolve(folder: str, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that `name` means for the kernels of `folder`; raises ValueError where none is.

    On CUDA, `auto` is cuSPARSE for coo and csr in fp32 and fp64, and Triton otherwise. Nothing
    falls back by itself: what is missing is an error that names the way out.
    """
    check_backend(name)
    if name == "auto":
        name = _automatic(folder, device, dtype)
    if name == "cpu" and device.type != "cpu":
        raise ValueError(f"backend: cpu takes tensors on the CPU, got one on {device}")
    if name in ("triton", "cusparse"):
        _check_cuda(folder, name, device, dtype)
    return name


def kernels(folder: str, backend: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The module actprune_kernels.<folder>.<backend> that serves `device` and `dtype`."""
    return import_module(f"actprune_kernels.{folder}.{resolve(folder, backend, device, dtype)}")


def _automatic(folder: str, device: torch.device, dtype: torch.dtype) -> str:
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ValueError(
            f"backend: no kernel for device {device.type!r}; backend=naive runs plain PyTorch there"
        )
    return "cusparse" if folder in ("coo", "csr") and dtype not in _HALF else "triton"


def _check_cuda(folder: str, name: str, device: torch.device, dtype: torch.dtype) -> None:
    on_meta = device.type == "meta"
    on_cpu = name == "triton" and device.type == "cpu" and interpreted()
    if not (device.type == "cuda" or on_meta or on_cpu):
        raise ValueError(f"backend: {name} takes tensors on CUDA, got one on {device}")
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            raise ValueError(
                f"backend: {name} needs compute capability 8.0 or more, {device} has "
                f"{capability[0]}.{capability[1]}; backend=naive runs plain PyTorch there"
            )
    if name == "cusparse":
        if folder == "bsr":
            raise ValueError("backend: bsr has the backends naive, cpu, triton; got 'cusparse'")
        if dtype in _HALF:
            raise ValueError(
                f"backend: cusparse takes float32 and float64, got {dtype}; use backend=triton"
            )
    elif dtype == torch.float64:
        others = "backend=naive" if folder == "bsr" else "backend=cusparse"
        raise ValueError(
            f"backend: triton takes float32, float16 and bfloat16, got {dtype}; use {others}"
        )
    for package in ("triton",) if name == "triton" else ("triton", "cupy"):
        if find_spec(package) is None:
            way = f"backend: {name} needs the package {package}: {_INSTALL[package]}"
            raise ValueError(f"{way}; backend=naive runs plain PyTorch")
