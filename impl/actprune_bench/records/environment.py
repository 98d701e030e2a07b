"""Where a result comes from: the code, the machine, the libraries."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import actprune
from actprune_common import machine
from actprune_common.errors import InputError
from actprune_common.git import git, uncommitted
from actprune_common.machine import SAME
from actprune_kernels import tuning
from actprune_kernels.backends import CUSPARSE, TRITON

ALLOCATOR = re.compile(r"MALLOC_\w+|GLIBC_TUNABLES|LD_PRELOAD|PYTORCH\w*_ALLOC_CONF")
"""Variables that say how memory is had: they move step times by a quarter (docs/measuring.md)."""


def check_same(place: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError, with what is kept in `place` named, where `now` differs in SAME."""
    for key in SAME:
        if kept[key] != now[key]:
            other = f"is of another {key} ({kept[key]}, now {now[key]})"
            raise InputError(f"{place}: {other}; start in another folder")


def environment(command: str) -> dict[str, object]:
    """A flat description of this process for results.json; `command` repeats the run."""
    commit, dirty = _git()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit,
        "dirty": dirty,
        **machine.describe(gpu),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "driver": driver() if gpu else None,
        "threads": torch.get_num_threads(),
        "allocator": allocator(os.environ),
        "python": platform.python_version(),
        "actprune": actprune.__version__,
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "triton": version("triton"),
    }


def driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel module, by the file in which it says so; None without one."""
    module = machine.field(file, "NVRM version") or ""
    found = re.search(r"\b\d+(\.\d+)+\b", module)
    return found and found[0]


def allocator(variables: Mapping[str, str]) -> str | None:
    """The settings of the memory allocator among environment variables; None for its defaults."""
    found = sorted(name for name in variables if ALLOCATOR.fullmatch(name))
    return " ".join(f"{name}={variables[name]}" for name in found) or None


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def backends() -> Iterator[str]:
    """A line per backend: what it computes, and whether it runs here or what it needs."""
    yield "cpu backend    dense, coo, csr, bsr in fp32, fp64, fp16, bf16: runs here"
    device = _device_lacks()
    triton, cusparse = ([f"the package {p}" for p in each.missing()] for each in (TRITON, CUSPARSE))
    yield f"cuda: triton   bsr, coo, csr in fp32, fp16, bf16: {_runs(triton + device)}"
    yield f"cuda: cusparse coo, csr in fp32, fp64: {_runs(cusparse + device)}"
    if not device:
        yield f"cuda: plans    of bsr's grad_weight: {_plans()}"


def _runs(lacks: list[str]) -> str:
    return f"needs {', '.join(lacks)}" if lacks else "runs here"


def _device_lacks() -> list[str]:
    if not torch.cuda.is_available():
        return ["a CUDA device"]
    major, minor = torch.cuda.get_device_capability()
    return [] if major >= 8 else [f"compute capability 8.0 or more (here {major}.{minor})"]


def _plans() -> str:
    name = torch.cuda.get_device_name()
    try:
        table = tuning.load(name)
    except ValueError as problem:
        return f"a damaged table: {problem}"
    return f"measured on {name} for {len(table)} shapes, else by rule" if table else "by rule"


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this code runs from; None where it is not one."""

    here = Path(__file__).parent
    try:
        git(here, "ls-files", "--error-unmatch", "--", __file__)
        return git(here, "rev-parse", "HEAD"), uncommitted(here)
    except InputError:
        return None, None
