"""The least time a device needs for an operation: bytes that must move, FLOP that must be done.

A measured time is quoted with its distance from this bound. It is a bound for inputs that come from
memory (a cold L2 cache): what an operation reads counts once, however often its kernel fetches it,
and what a kernel keeps for itself (block norms, selected positions) does not count at all.
"""

from dataclasses import dataclass

import torch

from actprune.formats import Format, PruningFormat, parse
from actprune_common.errors import InputError
from actprune_kernels.sizes import blocks_along, kept

OPS = ("compress", "grad_weight", "to_dense", "linear")
_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (torch.float32, torch.float64, *_HALF)


@dataclass(frozen=True)
class Device:
    """A GPU's peaks, dense (not the doubled figures for 2:4 sparsity)."""

    name: str
    """What torch.cuda.get_device_name() says."""
    bytes_per_s: float
    half: float
    """FLOP/s of fp16 and bf16 in tensor cores; so do tf32 and fp64."""
    tf32: float
    fp64: float
    plain_fp32: float
    """FLOP/s without tensor cores."""
    plain_fp64: float
    source: str


_A100 = "NVIDIA A100 Tensor Core GPU data sheet, A100 80GB SXM"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet, H100 SXM, without sparsity"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet, H200 SXM, without sparsity"
_B200 = "NVIDIA HGX B200 and DGX B200 data sheets, an eighth, without sparsity"
DEVICES = (
    Device("NVIDIA A100-SXM4-80GB", 2.039e12, 312e12, 156e12, 19.5e12, 19.5e12, 9.7e12, _A100),
    Device("NVIDIA H100 80GB HBM3", 3.35e12, 989e12, 494e12, 67e12, 67e12, 34e12, _H100),
    Device("NVIDIA H200", 4.8e12, 989e12, 494e12, 67e12, 67e12, 34e12, _H200),
    Device("NVIDIA B200", 8e12, 2250e12, 1125e12, 37e12, 75e12, 37e12, _B200),
)


@dataclass(frozen=True)
class Bound:
    """The least that an operation takes; `limit` is what takes longer, "memory" or "compute"."""

    bytes: int
    flop: int
    seconds: float
    limit: str


def find_device(name: str) -> Device | None:
    """The device of that torch.cuda.get_device_name(); None where its peaks are not known here.

    The whole name counts: PCIe cards, other memory sizes and slices of a GPU have other peaks.
    """
    return next((device for device in DEVICES if device.name == name), None)


def bound(
    device: Device,
    op: str,
    spec: str,
    rows: int,
    features: int,
    out_features: int,
    dtype: torch.dtype,
    *,
    touched_rows: int | None = None,
) -> Bound:
    """The bound of `op` on X (rows, features) and dY (rows, out_features), stored by `spec`.

    compress     X read, the buffers written; two operations per element, not in tensor cores
    grad_weight  the buffers and the touched rows of dY read, dW written; two operations per stored
                 element and output feature, in tensor cores but for coo and csr
    to_dense     the buffers read, X written
    linear       output, compress (dense keeps X as it is), input gradient and grad_weight, one
                 after the other; without the bias

    touched_rows: how many rows of dY the kept blocks lie in, where that was counted; without it,
    the fewest that they can lie in. fp32 counts as tf32 where torch multiplies it so
    (torch.set_float32_matmul_precision). Raises InputError on an unknown op, spec or dtype, and on
    sizes below 1.
    """
    _check(op, dtype, rows=rows, features=features, out_features=out_features)
    format = parse(spec)
    activation = torch.empty(rows, features, dtype=dtype, device="meta")
    buffers = format.empty_tensors(activation)
    stored = sum(buffer.nbytes for buffer in buffers)
    pruned = isinstance(format, PruningFormat)
    if op == "compress":
        flop = 2 * activation.numel() if pruned else 0
        return _bound(device, activation.nbytes + stored, flop, _plain(device, dtype))
    if op == "to_dense":
        return _bound(device, stored + activation.nbytes, 0, _plain(device, dtype))
    if op == "grad_weight":
        touched = fewest_rows(format, rows, features) if touched_rows is None else touched_rows
        size = dtype.itemsize
        moved = stored + touched * out_features * size + out_features * features * size
        # the zeros beyond a ragged edge are stored, but never more work than dense
        flop = 2 * min(buffers[0].numel(), activation.numel()) * out_features
        blocks = not pruned or hasattr(format, "block")
        peak = _tensor_cores(device, dtype) if blocks else _plain(device, dtype)
        return _bound(device, moved, flop, peak)
    # output and input gradient: the same three matrices, W (out_features, features) the third
    matrices = rows * features + rows * out_features + out_features * features
    flop = 2 * rows * features * out_features
    product = _bound(device, matrices * dtype.itemsize, flop, _tensor_cores(device, dtype))
    sizes = (rows, features, out_features, dtype)
    store = [bound(device, "compress", spec, *sizes)] if pruned else []
    weight = bound(device, "grad_weight", spec, *sizes, touched_rows=touched_rows)
    parts = [product, product, *store, weight]  # one after the other
    seconds = sum(part.seconds for part in parts)
    memory = sum(part.seconds for part in parts if part.limit == "memory")
    limit = "memory" if 2 * memory >= seconds else "compute"
    return Bound(sum(p.bytes for p in parts), sum(p.flop for p in parts), seconds, limit)


def fewest_rows(format: Format, rows: int, features: int) -> int:
    """How few of X's rows the kept blocks can lie in: all columns may have kept the same ones."""
    if not isinstance(format, PruningFormat):
        return rows
    bm, bn = getattr(format, "block", (1, 1))
    grid = blocks_along(rows, bm), blocks_along(features, bn)
    keep, _ = kept(*grid, format.sparsity, format.scope)
    if format.scope == "row":  # each row of blocks keeps some
        return rows
    high = keep if format.scope == "column" else blocks_along(keep, grid[1])
    return high * bm - -rows % bm  # the ragged last one may be among them


def _bound(device: Device, moved: int, flop: int, peak: float) -> Bound:
    memory, compute = moved / device.bytes_per_s, flop / peak
    limit = "memory" if memory >= compute else "compute"
    return Bound(moved, flop, max(memory, compute), limit)


def _tensor_cores(device: Device, dtype: torch.dtype) -> float:
    if dtype in _HALF:
        return device.half
    if dtype == torch.float64:
        return device.fp64
    exact = torch.get_float32_matmul_precision() == "highest"
    return device.plain_fp32 if exact else device.tf32


def _plain(device: Device, dtype: torch.dtype) -> float:
    """Half precision is computed in fp32."""
    return device.plain_fp64 if dtype == torch.float64 else device.plain_fp32


def _check(op: str, dtype: torch.dtype, **sizes: int) -> None:
    if op not in OPS:
        raise InputError(f"op: expected one of {', '.join(OPS)}, got {op!r}")
    if dtype not in _DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(map(str, _DTYPES))}, got {dtype}")
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name}: expected 1 or more, got {size}")
