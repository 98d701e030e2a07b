"""N of M consecutive features of a row: what sparse tensor cores read.

values (rows, groups * N) and places within the groups, (rows, ...) uint8, in 1, 2 or 4 bits each
packed as in actprune_kernels.quantization. The last group of a row is padded with zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.baselines import by_rows, select
from actprune_kernels.chunked import in_chunks
from actprune_kernels.quantization.naive import packed, unpacked
from actprune_kernels.sizes import blocks_along, rows_at_once, wide

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


def _rows(piece: slice, features: int, values: Tensor, places: Tensor, n: int, m: int) -> Tensor:
    some, groups = values[piece], values.shape[1] // n
    some = some.view(len(some), groups, n)
    index = unpacked(places[piece], PER_BYTE[m], groups * n).long().view_as(some)
    dense = some.new_zeros(len(some), groups, m).scatter_(2, index, some)
    return dense.view(len(some), groups * m)[:, :features].contiguous()


grad_weight, row_dot, to_dense = by_rows(_rows)
