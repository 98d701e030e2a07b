"""How every Triton kernel is launched: run on a device, or recorded from meta tensors.

The host side of a kernel computes its grid and arguments from sizes alone, so it also runs on meta
tensors, where a launch is only recorded. That gives the exact variants to compile ahead of time, on
a machine without a GPU, and proves that nothing waits for the data.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}
"""What every kernel is compiled with: Triton's default for it changes from 3.10 on."""

_recorders: list[list["Launch"]] = []


@dataclass(frozen=True)
class Launch:
    """One kernel launch: everything that decides its machine code."""

    kernel: Any
    """The function that `triton.jit` made."""
    args: dict[str, Any]
    """By parameter name, constexprs included; tensors are meta tensors."""
    num_warps: int
    num_stages: int


@contextmanager
def record() -> Iterator[list[Launch]]:
    """Collects the launches on meta tensors that happen inside."""
    launches: list[Launch] = []
    _recorders.append(launches)
    try:
        yield launches
    finally:
        _recorders.pop()


def launch(
    kernel: Any, grid: tuple[int, ...], *operands: Any, num_warps: int = 4, num_stages: int = 3,
    **constants: Any,
) -> None:  # fmt: skip
    """Run `kernel` over `grid` on the device of its tensors; record it where they are meta.

    operands: its tensors and sizes, in the order of its parameters; constants: its constexprs.
    """
    device = next(operand.device for operand in operands if isinstance(operand, Tensor))
    if device.type == "meta":
        args = signature(kernel.fn).bind(*operands, **constants).arguments
        for launches in _recorders:
            launches.append(Launch(kernel, args, num_warps, num_stages))
    elif all(grid):
        elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
        with torch.cuda.device(device) if elsewhere else nullcontext():
            options = {**constants, **OPTIONS, "num_warps": num_warps, "num_stages": num_stages}
            kernel[grid](*operands, **options)
