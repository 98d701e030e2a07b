"""bf16: the forward pass under autocast."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actprune.strategies.base import Replacement, Strategy


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters; without any, the CPU."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


class InBfloat16(Replacement):
    """A forward within autocast to bfloat16, whose output is float32 for the loss."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces, within autocast."""
        with torch.autocast(device_of(self.module).type, torch.bfloat16):
            out = self.replaced(*args, **kwargs)
        # as autocast does it for a loss that is computed within
        return out.float() if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else out


@dataclass(frozen=True)
class Bfloat16(Strategy):
    """The forward pass under autocast to bfloat16; parameters stay as they are."""

    name: str = "bf16"
    replacement = InBfloat16
