"""Every value in fewer bits: groups of consecutive values, each with a scale (ActNN: Chen et al.
2021, arXiv 2104.14129), coded as in actprune_kernels.quantization.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from actprune_kernels import quantization
from actprune_kernels.baselines import dotted, summed
from actprune_kernels.quantization import Parts, Quantized
from actprune_kernels.sizes import Size


def compress(activation: Tensor, group: int, kind: str, draw: Tensor) -> Parts:
    flat = activation.reshape(-1)
    groups = F.pad(flat, (0, -len(flat) % group)) if len(flat) % group else flat
    parts: Parts = quantization.backend(flat.device).encode(groups.view(-1, group), kind, draw)
    return parts


def grad_weight(values: Quantized, grad_output: Tensor, features: int) -> Tensor:
    return summed(_rows(values, features), grad_output, features)


def row_dot(values: Quantized, other: Tensor) -> Tensor:
    return dotted(_rows(values, other.shape[1]), other)


def to_dense(values: Quantized, shape: Size) -> Tensor:
    return _rows(values, shape[1])(slice(0, shape[0])).to(values.dtype)


def _rows(values: Quantized, features: int) -> Callable[[slice], Tensor]:
    def take(piece: slice) -> Tensor:
        flat = values.flat(slice(piece.start * features, piece.stop * features))
        return flat.view(piece.stop - piece.start, features)

    return take
