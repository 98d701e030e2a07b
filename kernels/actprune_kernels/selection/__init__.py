"""Which candidates (blocks or single elements) stay, given their magnitudes.

naive and cpu export `select(magnitudes, keep, scope, draw)`:

magnitudes  (columns, rows), float, >= 0 or NaN: block-column order, as the stores are.
keep        how many each group keeps; a group is a column, a row, or everything (`scope`).
draw        None for top-k; for priority sampling an int64 tensor (3,): seed, stream, counter; on
            the CPU also a `generator` of one, for selections in pieces.
returns     mask (columns, rows) bool, and scale (nnz,) in block-column order, or None for top-k.

NaN ranks above Inf and Inf above every number. Equal magnitudes: the lower index stays.

Priority sampling (Duffield, Lund, Thorup 2007): with uniform u in (0, 1], keep the k largest
q = magnitude / u; with t the (k+1)-th q, scale what stays by max(1, t / magnitude). Then the
expectation of the scaled store is the input itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.sizes import kept, wide


@dataclass(frozen=True, eq=False)
class Selection:
    """How a store selects: what each kernel's `compress` takes beside the activation."""

    sparsity: float
    """The fraction that is dropped, 0 <= s < 1."""
    scope: str
    """Groups of which each keeps equally many: "column", "row", or "global" for one of all."""
    draw: Tensor | None = None
    """As above."""
    sample_importance: Tensor | None = None
    """(rows,), positive: what each row is worth; None: all alike."""

    def kept(self, block_rows: int, block_cols: int) -> tuple[int, int]:
        """(kept per group, kept in all) of a grid of blocks."""
        return kept(block_rows, block_cols, self.sparsity, self.scope)

    def weighed(self, magnitudes: Tensor, height: int = 1) -> Tensor:
        """Magnitudes (columns, rows of blocks) times what their rows are worth.

        A block, `height` rows high, is worth what its worthiest row is.
        """
        importance = self.sample_importance
        if importance is None:
            return magnitudes
        of_blocks = F.pad(importance, (0, -len(importance) % height)).view(-1, height).amax(1)
        dtype = wide(magnitudes.dtype)
        return magnitudes.to(dtype) * of_blocks.to(dtype)


def generator(draw: Tensor) -> np.random.Generator:
    """Random numbers that are a pure function of `draw` (seed, stream, counter)."""
    return np.random.default_rng([int(part) for part in draw.tolist()])


def uniforms(like: Tensor, draw: Tensor | np.random.Generator) -> Tensor:
    """As many uniform numbers in (0, 1], of a draw, or the next ones of its generator."""
    source = generator(draw) if isinstance(draw, Tensor) else draw
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    return 1 - torch.from_numpy(source.random(tuple(like.shape), dtype=dtype)).to(like.device)


def grouped(columns_by_rows: Tensor, scope: str) -> Tensor:
    """(groups, size): one group to a row."""
    if scope == "global":
        return columns_by_rows.reshape(1, -1)
    return columns_by_rows if scope == "column" else columns_by_rows.t()


def largest(keys: Tensor, least: Tensor, keep: int) -> Tensor:
    """Mask of the `keep` largest of each row; of equal ones the first. least: the keep-th largest.

    keys (groups, size), least (groups, 1).
    """
    above, tied = keys > least, keys == least
    missing = keep - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= missing))


def scaled(values: Tensor, scale: Tensor | None) -> Tensor:
    """values (nnz, ...) times scale (nnz,), which no scale leaves as they are."""
    if scale is None:
        return values
    return (values * scale.view(-1, *[1] * (values.dim() - 1))).to(values.dtype)


def rescale(magnitudes: Tensor, threshold: Tensor) -> Tensor:
    """max(1, threshold / magnitude); 1 where either is not finite or the magnitude is 0."""
    scale = (threshold / magnitudes).clamp(min=1)
    usable = magnitudes.isfinite() & threshold.isfinite() & (magnitudes > 0)
    return torch.where(usable, scale, torch.ones_like(scale))
