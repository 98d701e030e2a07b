"""Bitmap: elements and a bit for each place, as Back Razor keeps them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import BaselineFormat
from actprune_kernels.sizes import blocks_along, kept


@dataclass(frozen=True, kw_only=True)
class Bitmap(BaselineFormat):
    """Prunes elements; 4 bytes for each that stays (fp32), and a bit for every one.

    Options are those of BaselineFormat.
    """

    name = "bitmap"
    fields = ("values", "bits")

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        bits = like.new_empty(features, blocks_along(rows, 8), dtype=torch.uint8)
        return like.new_empty(nnz), bits
