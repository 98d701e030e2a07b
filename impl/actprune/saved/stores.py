"""What the content of a storage is kept as between the forward and the backward pass."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from actprune.formats import Compressed, Format
from actprune_kernels import codes

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Store(Protocol):
    """A flat tensor (n,), kept in some way."""

    @property
    def name(self) -> str:
        """As a table shows it."""

    @property
    def nbytes(self) -> int:
        """What is kept."""

    def flat(self) -> Tensor:
        """The tensor; a new one, but for `Whole`."""


def unchanged(tensor: Tensor, version: int) -> Tensor:
    """Return a tensor, which autograd's own check does not see. Raises RuntimeError as that does:
    where it was changed in place since it had this version."""
    if tensor._version != version:
        raise RuntimeError(
            "a tensor that the backward pass computes from has been changed in place since the "
            f"forward pass: shape {tuple(tensor.shape)}, version {tensor._version}, "
            f"expected {version}"
        )
    return tensor


class Whole:
    """The tensor itself."""

    name = "whole"

    def __init__(self, kept: Tensor) -> None:
        self.kept, self.version = kept, kept._version

    @property
    def nbytes(self) -> int:
        """Of the tensor."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """Not to be written to. Raises RuntimeError where somebody did."""
        return unchanged(self.kept, self.version)


class Coded:
    """Groups of neighbours in few bits, each value rounded to the nearest level."""

    def __init__(self, flat: Tensor, bits: int, group: int) -> None:
        self.bits, self.group, self.count, self.dtype = bits, group, flat.numel(), flat.dtype
        if isinstance(flat, FakeTensor):  # there is nothing to look at
            rows = -(-self.count // group)
            kept: Tensor = flat.new_empty(rows, codes.width(bits, group), dtype=torch.uint8)
        else:
            kept = codes.backend(flat.device).pack(flat, bits, group)
        self.kept = kept

    @property
    def name(self) -> str:
        """With the bits of a code."""
        return f"codes:bits={self.bits}"

    @property
    def nbytes(self) -> int:
        """Codes, scales and biases."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """The values of the levels."""
        if isinstance(self.kept, FakeTensor):
            return self.kept.new_empty(self.count, dtype=self.dtype)
        unpack = codes.backend(self.kept.device).unpack
        found: Tensor = unpack(self.kept, self.bits, self.group, self.count, self.dtype)
        return found


class Pruned:
    """What a format keeps of rows of features."""

    def __init__(self, flat: Tensor, features: int, format: Format, draw: Tensor | None) -> None:
        self.name = format.spec
        self.kept: Compressed = format.compress(flat.view(-1, features), draw)

    @property
    def nbytes(self) -> int:
        """Values and indices."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """With zeros where it was pruned."""
        return self.kept.to_dense().view(-1)


class Bits:
    """A tensor of two values: a mask, a dropout's scaled one, one of 0 and -inf."""

    name = "bits"

    def __init__(self, kept: Tensor, count: int, ends: Tensor | None = None) -> None:
        """Hold what codes.pack_bits makes of booleans, or pack_two of others, and these `ends`."""
        self.kept, self.count, self.ends = kept, count, ends

    @property
    def nbytes(self) -> int:
        """An eighth of a byte each."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """Exactly what it was."""
        if isinstance(self.kept, FakeTensor):
            return self.kept.new_empty(self.count, dtype=torch.bool)
        coding = codes.backend(self.kept.device)
        if self.ends is None:
            found: Tensor = coding.unpack_bits(self.kept, self.count)
        else:
            found = coding.unpack_two(self.kept, self.ends, self.count)
        return found


class Narrow:
    """Integers in the smallest type that holds them."""

    name = "narrow"

    def __init__(self, flat: Tensor) -> None:
        self.dtype, self.kept = flat.dtype, codes.narrow(flat)

    @property
    def nbytes(self) -> int:
        """Of the narrow integers."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """Exactly what it was."""
        return self.kept.to(self.dtype)


def lossless(flat: Tensor) -> Store | None:
    """Return the least that holds a tensor exactly, bit by bit; None where that is itself."""
    count = flat.numel()
    if flat.dtype == torch.bool:
        if isinstance(flat, FakeTensor):
            return Bits(flat.new_empty(-(-count // 8), dtype=torch.uint8), count)
        return Bits(codes.backend(flat.device).pack_bits(flat), count)
    if isinstance(flat, FakeTensor) or not count:
        return None
    if flat.dtype in FLOATS:
        found = codes.backend(flat.device).pack_two(flat)
        return None if found is None else Bits(found[0], count, found[1])
    if not _is_integer(flat.dtype):
        return None
    narrow = Narrow(flat)
    return narrow if narrow.nbytes < flat.nbytes else None


def _is_integer(dtype: torch.dtype) -> bool:
    return dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def group_of(shape: Sequence[int], strides: Sequence[int], most: int = 128) -> int:
    """Return how many neighbours share a scale: at most `most`, and a whole part of a row.

    A row is what lies along the dimension of stride 1, and of images a channel; a group that held
    the end of one and the start of another would lose the smaller of them. Multiples of 32 come
    first: FBGEMM codes the values beyond one by one, 64 at 0.4 ns each and 80 at 0.9. Where images
    have none, `most` it is: their channels or pixels side by side are alike.
    """
    return _group_of(tuple(shape), tuple(strides), most)


@lru_cache(maxsize=4096)
def _group_of(shape: tuple[int, ...], strides: tuple[int, ...], most: int) -> int:
    order = sorted(range(len(shape)), key=lambda d: strides[d], reverse=True)
    row = next((shape[d] for d in reversed(order) if shape[d] > 1), 1)
    images = len(shape) == 4
    if images and order == [0, 1, 2, 3]:
        row = math.prod(shape[2:])
    groups = range(most - most % 8, min(most, 32) - 1, -8)
    fast = [group for group in groups if group % 32 == 0 and group > 32]
    slow = [] if images else [group for group in groups if group not in fast]
    return next((group for group in (*fast, *slow) if row % group == 0), most)
