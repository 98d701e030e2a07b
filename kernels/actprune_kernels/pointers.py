"""Where each column starts among what is kept of it (colptr), and the column of each item kept.

The columns twice: counted, which is faster but waits for the data, and searched.
"""

import torch
from torch import Tensor


def colptr_of(columns: Tensor, features: int) -> Tensor:
    """(features + 1,) int64: where each column starts among the sorted `columns` (nnz,)."""
    edges = torch.arange(features + 1, device=columns.device, dtype=columns.dtype)
    return torch.searchsorted(columns, edges)


def columns_of(colptr: Tensor) -> Tensor:
    """(nnz,) int64: the column that each stored item lies in."""
    columns = torch.arange(colptr.numel() - 1, device=colptr.device)
    return torch.repeat_interleave(columns, colptr.long().diff())


def search_columns(colptr: Tensor, nnz: int) -> Tensor:
    """(nnz,): `columns_of` without waiting for the data."""
    ends = colptr[1:].to(torch.int32 if nnz < 2**31 else torch.int64)
    items = torch.arange(nnz, device=colptr.device, dtype=ends.dtype)
    return torch.searchsorted(ends, items, right=True, out_int32=nnz < 2**31)
