"""Counts and index types that follow from sizes alone, so that no kernel waits for the data."""

import torch

Size = tuple[int, int]
"""Rows and features."""
SCOPES = ("global", "column", "row")
SELECTS = ("topk", "priority")
NORMS = ("l2", "l1", "max")


def keep_count(n: int, sparsity: float) -> int:
    """How many of `n` candidates stay: max(1, round((1 - sparsity) n)), and 0 of none."""
    return max(1, round((1 - sparsity) * n)) if n else 0


def kept(block_rows: int, block_cols: int, sparsity: float, scope: str) -> tuple[int, int]:
    """(kept per group, kept in all) of a grid of blocks; the scope says what a group is."""
    column, row, whole = (block_rows, block_cols), (block_cols, block_rows), block_rows * block_cols
    size, groups = {"column": column, "row": row, "global": (whole, 1)}[scope]
    keep = keep_count(size, sparsity)
    return keep, keep * groups


def index_dtype(largest: int) -> torch.dtype:
    """The smallest integer type that torch computes with and that holds 0..largest."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if largest <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type to accumulate in: fp32 for half precision, otherwise the type itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def factor(dtype: torch.dtype) -> torch.dtype:
    """The type of a product's factors on the CPU: bf16 as it is, as its GEMM adds in fp32 (and is
    three times as fast where the processor has it); else `wide`."""
    return dtype if dtype == torch.bfloat16 else wide(dtype)


def blocks_along(size: int, block: int) -> int:
    """How many blocks of `block` cover `size`, the ragged last one included."""
    return -(-size // block)


def power_of_2(size: int) -> int:
    """The least power of 2 that is no less than `size`, nor than 1."""
    return 1 << max(0, size - 1).bit_length()


def at_once() -> int:
    """Elements to work on at a time on the CPU, so that what is between stays in the caches."""
    return torch.get_num_threads() << 18


def rows_at_once(features: int, multiple: int = 1) -> int:
    """Rows of `features` elements to make dense at a time, in multiples."""
    return multiple * max(1, at_once() // max(1, features * multiple))
