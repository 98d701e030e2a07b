"""Random selections without a state: what is drawn follows from what it is drawn for."""

import torch
from torch import Tensor

_READ = 16
"""Features of each row that tell one tensor from another."""
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def draw_for(first: Tensor, *tensors: Tensor) -> Tensor:
    """Return the draw (int64: seed, stream, counter) of a selection for tensors (..., features).

    It follows from the bits of `first` and of the tensors alone. So a forward pass that is
    repeated for its backward pass, and a run that is resumed, select as they did; ranks, the uses
    of one layer and steps, between which a weight changes, select apart. Nothing is kept between
    them, and nothing is read back from the device.

    Args:
        first: int64 (3,): seed, stream and an offset, on the device of the tensors.
        tensors: the input and the weight of a layer.
    """
    found = first[2:]
    for tensor in tensors:
        found = (found * 0x9E3779B1 + _fingerprint(tensor.detach())) & 0x7FFFFFFF
    return torch.cat([first[:2], found])


def _fingerprint(tensor: Tensor) -> Tensor:
    """The sum of the bits of some features, in whatever order the device adds them."""
    some = tensor[..., :: max(1, tensor.shape[-1] // _READ)]
    return some.view(_BITS[tensor.element_size()]).sum()
