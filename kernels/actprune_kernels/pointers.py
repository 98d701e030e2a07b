"""Where each column starts among what is kept of it (colptr), and the column of each item kept.

Each way twice: counted, which waits for the data, and searched, which a GPU need not wait for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def colptr_of(columns: Tensor, features: int) -> Tensor:
    """(features + 1,) int64: where each column starts among the sorted `columns` (nnz,)."""
    return F.pad(torch.bincount(columns, minlength=features).cumsum(0), (1, 0))


def columns_of(colptr: Tensor) -> Tensor:
    """(nnz,) int64: the column that each stored item lies in."""
    columns = torch.arange(colptr.numel() - 1, device=colptr.device)
    return torch.repeat_interleave(columns, colptr.long().diff())


def search_colptr(columns: Tensor, features: int) -> Tensor:
    """(features + 1,): `colptr_of` without waiting for the data."""
    columns = columns if columns.dtype in (torch.int32, torch.int64) else columns.int()
    edges = torch.arange(features + 1, device=columns.device, dtype=columns.dtype)
    return torch.searchsorted(columns, edges)


def search_columns(colptr: Tensor, nnz: int) -> Tensor:
    """(nnz,): `columns_of` without waiting for the data."""
    ends = colptr[1:].to(torch.int32 if nnz < 2**31 else torch.int64)
    items = torch.arange(nnz, device=colptr.device, dtype=ends.dtype)
    return torch.searchsorted(ends, items, right=True, out_int32=nnz < 2**31)
