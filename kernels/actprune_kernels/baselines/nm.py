"""N of M consecutive features of a row: what sparse tensor cores read.

values (rows, groups * N) and positions within the groups, (rows, ...) uint8, in 1, 2 or 4 bits each
packed as in actprune_kernels.codes. The last group of a row is padded with zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.baselines import selection, summed
from actprune_kernels.chunked import in_pieces
from actprune_kernels.quantization import naive as coding
from actprune_kernels.sizes import blocks_along, rows_at_once, wide

PER_BYTE = {2: 8, 4: 4, 8: 2, 16: 2}
"""Positions to a byte, by M."""


def compress(activation: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    rows, features = activation.shape
    width = blocks_along(features, m) * n

    def some(piece: slice) -> tuple[Tensor, Tensor]:
        part = activation[piece]
        groups = F.pad(part, (0, -features % m)).reshape(-1, m)
        magnitudes = groups.abs().to(wide(activation.dtype))
        mask, _ = selection(activation.device).select(magnitudes, n, "column", None)
        places = mask.nonzero()[:, 1].to(torch.uint8).view(len(part), width)
        return groups[mask].view(len(part), width), coding.packed(places, PER_BYTE[m])

    return in_pieces(some, rows, rows_at_once(features))


def grad_weight(
    values: Tensor, places: Tensor, n: int, m: int, grad_output: Tensor, features: int
) -> Tensor:
    def take(piece: slice) -> Tensor:
        return to_dense(values[piece], places[piece], n, m, features)

    return summed(take, grad_output, features, rows_at_once(features))


def to_dense(values: Tensor, places: Tensor, n: int, m: int, features: int) -> Tensor:
    rows, width = values.shape
    index = coding.unpacked(places, PER_BYTE[m], width).long().view(rows, width // n, n)
    dense = values.new_zeros(rows, width // n, m)
    dense.scatter_(2, index, values.view(rows, width // n, n))
    return dense.view(rows, width // n * m)[:, :features].contiguous()
