"""Every value in fewer bits, rounded to the nearest: actprune_kernels.codes as a format."""

from typing import Any

import torch
from torch import Tensor

from actprune_kernels.baselines import by_rows
from actprune_kernels.codes import backend
from actprune_kernels.sizes import Size


def compress(activation: Tensor, bits: int, group: int) -> tuple[Tensor]:
    return (backend(activation.device).pack(activation.contiguous(), bits, group),)


def _rows(
    piece: slice, features: int, codes: Tensor, bits: int, group: int, dtype: torch.dtype
) -> Tensor:
    start, stop = piece.start * features, piece.stop * features
    first, last = start // group, -(-stop // group)
    unpack = backend(codes.device).unpack
    flat: Tensor = unpack(codes[first:last], bits, group, (last - first) * group, dtype)
    return flat[start - first * group : stop - first * group].view(
        piece.stop - piece.start, features
    )


grad_weight, row_dot, _ = by_rows(_rows)


def to_dense(*, shape: Size, **store: Any) -> Tensor:
    return _rows(slice(0, shape[0]), shape[1], **store)
