"""Every value in fewer bits: groups of consecutive values, each with a scale (ActNN: Chen et al.
2021, arXiv 2104.14129), coded as in actprune_kernels.quantization.
"""

import torch.nn.functional as F
from torch import Tensor

from actprune_kernels import quantization
from actprune_kernels.baselines import by_rows
from actprune_kernels.quantization import Parts, Quantized


def compress(activation: Tensor, group: int, kind: str, draw: Tensor) -> Parts:
    flat = activation.reshape(-1)
    groups = F.pad(flat, (0, -len(flat) % group)) if len(flat) % group else flat
    parts: Parts = quantization.backend(flat.device).encode(groups.view(-1, group), kind, draw)
    return parts


def _rows(piece: slice, features: int, values: Quantized) -> Tensor:
    flat = values.flat(slice(piece.start * features, piece.stop * features))
    return flat.view(piece.stop - piece.start, features)


grad_weight, row_dot, to_dense = by_rows(_rows)
