"""How every Triton kernel is launched: run on a device, or recorded from meta tensors.

The host side of a kernel computes its grid and arguments from sizes alone, so it also runs on meta
tensors, where a launch is only recorded. That gives the exact variants to compile ahead of time, on
a machine without a GPU, and proves that nothing waits for the data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}
"""What every kernel is compiled with: Triton's default for it changes from 3.10 on."""

_recorders: list[list["Launch"]] = []
_compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}
"""Machine code, and the constexprs behind the operands, by all that decides them."""
_MOST = 4096  # sizes are part of what decides, and those of texts change with every batch


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

    operands: its tensors and sizes, in the order of its parameters, a tensor first; constants: its
    constexprs.
    """
    device = operands[0].device
    if device.type == "meta":
        args = signature(kernel.fn).bind(*operands, **constants).arguments
        for launches in _recorders:
            launches.append(Launch(kernel, args, num_warps, num_stages))
    elif all(grid):
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                _run(kernel, grid, device, operands, constants, num_warps, num_stages)
        else:
            _run(kernel, grid, device, operands, constants, num_warps, num_stages)


def _run(
    kernel: Any, grid: tuple[int, ...], device: torch.device, operands: tuple[Any, ...],
    constants: dict[str, Any], num_warps: int, num_stages: int,
) -> None:  # fmt: skip
    """Launch what an earlier launch has compiled, where all that Triton looks at is the same.

    Triton finds that out for each argument by itself, which takes longer than the launch.
    """
    seen = [(o.dtype, o.data_ptr() & 15) if isinstance(o, Tensor) else o for o in operands]
    key = (kernel.fn, device, num_warps, num_stages, *constants.items(), *seen)
    made = _compiled.get(key)
    if made is not None:
        machine_code, built_in = made
        machine_code[(*grid, 1, 1)[:3]](*operands, *built_in)
        return
    options = {**constants, **OPTIONS, "num_warps": num_warps, "num_stages": num_stages}
    machine_code = kernel[grid](*operands, **options)
    if machine_code is None or torch.version.hip is not None:
        return  # in the interpreter; or on AMD, where Triton looks at the sizes of tensors, too
    if len(_compiled) >= _MOST:
        _compiled.clear()
    names = kernel.arg_names[len(operands) :]
    _compiled[key] = machine_code, tuple(constants[name] for name in names)
