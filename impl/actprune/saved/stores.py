"""What the content of a storage is kept as between the forward and the backward pass."""

import math
from collections.abc import Sequence
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
        self.name = f"codes:bits={bits}"
        if isinstance(flat, FakeTensor):  # there is nothing to look at
            rows = -(-self.count // group)
            kept: Tensor = flat.new_empty(rows, codes.width(bits, group), dtype=torch.uint8)
        else:
            kept = codes.backend(flat.device).pack(flat, bits, group)
        self.kept = kept

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

    def __init__(self, flat: Tensor, low: Tensor, high: Tensor) -> None:
        self.count, self.ends = flat.numel(), (low, high)
        mask = flat if flat.dtype == torch.bool else flat != low
        if isinstance(flat, FakeTensor):
            self.kept: Tensor = flat.new_empty(-(-self.count // 8), dtype=torch.uint8)
        else:
            self.kept = codes.backend(flat.device).pack_bits(mask)

    @property
    def nbytes(self) -> int:
        """An eighth of a byte each."""
        return self.kept.nbytes

    def flat(self) -> Tensor:
        """Exactly what it was."""
        low, high = self.ends
        if isinstance(self.kept, FakeTensor):
            return low.new_empty(self.count)
        mask: Tensor = codes.backend(self.kept.device).unpack_bits(self.kept, self.count)
        return mask if low.dtype == torch.bool else torch.where(mask, high, low)


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
    """Return the least that holds a tensor exactly; None where that is the tensor itself."""
    if flat.dtype == torch.bool:
        return Bits(flat, *torch.tensor([False, True], device=flat.device))
    if isinstance(flat, FakeTensor) or not (flat.dtype in FLOATS or _is_integer(flat.dtype)):
        return None
    if not flat.is_floating_point():
        narrow = Narrow(flat)
        return narrow if narrow.nbytes < flat.nbytes else None
    for some in (flat[:64], flat):  # a look at a few first
        low, high = torch.aminmax(some)
        if not bool(((some == low) | (some == high)).all()):
            return None
    return Bits(flat, low, high)


def _is_integer(dtype: torch.dtype) -> bool:
    return dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def group_of(shape: Sequence[int], strides: Sequence[int], most: int = 128) -> int:
    """Return how many neighbours share a scale: at most `most`, and a whole part of a row.

    A row is what lies along the dimension of stride 1, and of images a channel; a group that held
    the end of one and the start of another would lose the smaller of them.
    """
    order = sorted(range(len(shape)), key=lambda d: strides[d], reverse=True)
    sizes = [shape[d] for d in order if shape[d] > 1] or [1]
    rows = [sizes[-1]]
    if len(shape) == 4 and order == [0, 1, 2, 3]:
        rows.insert(0, math.prod(shape[2:]))
    for row in rows:
        for group in range(most - most % 8, min(most, 32) - 1, -8):
            if row % group == 0:
                return group
    return most
