"""offload: what autograd saves goes to host memory."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from actprune.strategies.autocast import device_of
from actprune.strategies.base import Replacement, Strategy
from actprune_common.errors import InputError


class Offloading(Replacement):
    """A forward whose saved tensors go to pinned host memory and come back in the backward pass."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces; raises InputError where host memory is all there is."""
        device = device_of(self.module)
        if device.type == "cpu":
            got = "got one on the CPU: all is in host memory"
            raise InputError(f"offload: expected a model on a GPU, {got}")
        with moved_to_host(pin=device.type == "cuda"):
            return self.replaced(*args, **kwargs)


def moved_to_host(*, pin: bool) -> saved_tensors_hooks:
    """Return hooks that keep saved tensors in host memory; weights stay. Unmeasured on a GPU."""

    def pack(tensor: Tensor) -> tuple[Tensor, torch.device | None]:
        if isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter):
            return tensor, None
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
        host.copy_(tensor)
        return host, tensor.device

    def unpack(packed: tuple[Tensor, torch.device | None]) -> Tensor:
        tensor, device = packed
        return tensor if device is None else tensor.to(device, non_blocking=True)

    return saved_tensors_hooks(pack, unpack)


@dataclass(frozen=True)
class Offload(Strategy):
    """What autograd saves goes to host memory and comes back in the backward pass."""

    name: str = "offload"
    replacement = Offloading
