"""N of M consecutive features of a row: what sparse tensor cores read.

values (rows, groups * N) and places within the groups, (rows, ...) uint8, in 1, 2 or 4 bits each
packed as in actprune_kernels.quantization. The last group of a row is padded with zeros.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.baselines import dotted, select, summed
from actprune_kernels.chunked import in_chunks
from actprune_kernels.quantization.naive import packed, unpacked
from actprune_kernels.sizes import Size, blocks_along, rows_at_once, wide

PER_BYTE = {2: 8, 4: 4, 8: 2, 16: 2}
"""Places to a byte, by M."""


def compress(activation: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    rows, features = activation.shape
    width = blocks_along(features, m) * n

    def some(piece: slice) -> tuple[Tensor, Tensor]:
        part = activation[piece]
        groups = F.pad(part, (0, -features % m)).reshape(-1, m)
        mask, _ = select(groups.abs().to(wide(activation.dtype)), n, "column", None)
        places = mask.nonzero()[:, 1].to(torch.uint8).view(len(part), width)
        return groups[mask].view(len(part), width), packed(places, PER_BYTE[m])

    return in_chunks(some, rows, rows_at_once(features))


def grad_weight(
    values: Tensor, places: Tensor, n: int, m: int, grad_output: Tensor, features: int
) -> Tensor:
    return summed(_rows(values, places, n, m, features), grad_output, features)


def row_dot(values: Tensor, places: Tensor, n: int, m: int, other: Tensor) -> Tensor:
    return dotted(_rows(values, places, n, m, other.shape[1]), other)


def to_dense(values: Tensor, places: Tensor, n: int, m: int, shape: Size) -> Tensor:
    return _rows(values, places, n, m, shape[1])(slice(None))


def _rows(
    values: Tensor, places: Tensor, n: int, m: int, features: int
) -> Callable[[slice], Tensor]:
    groups = values.shape[1] // n

    def take(piece: slice) -> Tensor:
        some = values[piece]
        some = some.view(len(some), groups, n)
        index = unpacked(places[piece], PER_BYTE[m], groups * n).long().view_as(some)
        dense = some.new_zeros(len(some), groups, m).scatter_(2, index, some)
        return dense.view(len(some), groups * m)[:, :features].contiguous()

    return take
