"""What a tensor is kept as between the forward and the backward pass."""

from typing import Any

import torch
from torch import Tensor

_OPS = torch.ops.quantized
_PACK = {
    2: (_OPS.embedding_bag_2bit_prepack, _OPS.embedding_bag_2bit_unpack),
    4: (_OPS.embedding_bag_4bit_prepack, _OPS.embedding_bag_4bit_unpack),
    8: (_OPS.embedding_bag_byte_prepack, _OPS.embedding_bag_byte_unpack),
}


class Codes:
    """Groups of neighbours in few bits."""

    def __init__(self, flat: Tensor, bits: int, group: int = 128) -> None:
        self.bits, self.dtype, self.count = bits, flat.dtype, flat.numel()
        if self.count % group:
            flat = torch.nn.functional.pad(flat, (0, -self.count % group), value=float(flat[-1]))
        self.codes = _PACK[bits][0](flat.view(-1, group).float())

    @property
    def nbytes(self):
        return self.codes.nbytes

    def flat(self) -> Tensor:
        return _PACK[self.bits][1](self.codes).view(-1)[: self.count].to(self.dtype)


class Bits:
    """Two values."""

    def __init__(self, flat: Tensor, low: float, high: float) -> None:
        self.low, self.high, self.dtype, self.count = low, high, flat.dtype, flat.numel()
        import numpy as np

        mask = (flat != low).numpy()
        self.codes = torch.from_numpy(np.packbits(mask))

    @property
    def nbytes(self):
        return self.codes.nbytes

    def flat(self) -> Tensor:
        import numpy as np

        bits = torch.from_numpy(np.unpackbits(self.codes.numpy(), count=self.count))
        if self.dtype == torch.bool:
            return bits.view(torch.bool)
        out = bits.to(self.dtype)
        if self.low == 0:
            return out.mul_(self.high)
        return torch.where(bits.bool(), self.high, self.low).to(self.dtype)


class Narrow:
    def __init__(self, flat: Tensor, dtype) -> None:
        self.dtype, self.codes = flat.dtype, flat.to(dtype)

    @property
    def nbytes(self):
        return self.codes.nbytes

    def flat(self) -> Tensor:
        return self.codes.to(self.dtype)


def lossless(flat: Tensor) -> Any:
    if flat.dtype == torch.bool:
        return Bits(flat, 0, 1)
    if not flat.is_floating_point():
        low, high = (int(v) for v in flat.aminmax())
        for dtype in (torch.uint8, torch.int16, torch.int32):
            info = torch.iinfo(dtype)
            if info.min <= low and high <= info.max and info.bits // 8 < flat.itemsize:
                return Narrow(flat, dtype)
        return None
    some = flat[:64]
    low, high = some.min(), some.max()
    if bool(((some == low) | (some == high)).all()):
        low, high = flat.min(), flat.max()
        if bool(((flat == low) | (flat == high)).all()):
            return Bits(flat, float(low), float(high))
    return None
