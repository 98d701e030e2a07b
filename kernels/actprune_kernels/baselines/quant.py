"""Every value in fewer bits: groups of consecutive values, each with a scale (ActNN: Chen et al.
2021, arXiv 2104.14129), coded as in actprune_kernels.codes.
"""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels import quantization as codes
from actprune_kernels.baselines import summed
from actprune_kernels.quantization import Parts
from actprune_kernels.sizes import factor, rows_at_once, wide


def compress(activation: Tensor, group: int, kind: str, draw: Tensor) -> Parts:
    flat = activation.reshape(-1)
    groups = F.pad(flat, (0, -len(flat) % group)) if len(flat) % group else flat
    parts: Parts = codes.backend(flat.device).encode(groups.view(-1, group), kind, draw)
    return parts


def grad_weight(parts: Parts, group: int, kind: str, grad_output: Tensor, features: int) -> Tensor:
    dtype = factor(grad_output.dtype)

    def take(piece: slice) -> Tensor:
        stop = min(piece.stop, len(grad_output))
        first, last = piece.start * features // group, -(-stop * features // group)
        values = _decoded(parts, first, last, group, kind, dtype)
        rows = stop - piece.start
        return values[: rows * features].view(rows, features)

    step = rows_at_once(features, whole_rows(group, features))
    return summed(take, grad_output, features, step)


def whole_rows(group: int, features: int) -> int:
    """The fewest rows that fill groups."""
    return group // gcd(group, features) if features else 1


def to_dense(
    parts: Parts, group: int, kind: str, rows: int, features: int, dtype: torch.dtype
) -> Tensor:
    values = _decoded(parts, 0, len(parts[0]), group, kind, wide(dtype))
    return values[: rows * features].view(rows, features).to(dtype)


def _decoded(
    parts: Parts, first: int, last: int, group: int, kind: str, dtype: torch.dtype
) -> Tensor:
    some = tuple(part[first:last] for part in parts)
    values: Tensor = codes.backend(parts[0].device).decode(some, kind, group, dtype)
    return values.view(-1)
