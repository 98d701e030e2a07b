"""What nn.Linear multiplies under autocast, and one copy of a weight for all its uses."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def autocast(device: torch.device, *parts: Tensor | None) -> tuple[Any, ...]:
    """Return what torch multiplies in place of `parts` under autocast, which leaves float64 be."""
    if not _is_on(device):
        return parts
    dtype = torch.get_autocast_dtype(device.type)
    return tuple(part if part is None else _cast(part, dtype) for part in parts)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which nothing is cast, which costs nothing where nothing is anyway."""
    return torch.autocast(device.type, enabled=False) if _is_on(device) else nullcontext()


def _is_on(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def _cast(part: Tensor, dtype: torch.dtype) -> Tensor:
    if not part.is_floating_point() or part.dtype in (torch.float64, dtype):
        return part
    own = isinstance(part, nn.Parameter) and part.requires_grad and part.dim() == 2
    if torch.compiler.is_compiling() or not own:
        return part.to(dtype)
    # autocast's own copy, which lies in a cache that no Python function reads: an operator that
    # multiplies by nothing gets it, and tells it; the innermost hooks are the only ones to see it
    with saved_tensors_hooks(_itself, _itself):
        nothing = part.new_empty(part.shape[1], 0).requires_grad_()
        product: Any = torch.mm(part, nothing).grad_fn
    copy: Tensor = product._saved_self
    return copy if copy.requires_grad else part.to(dtype)  # a use without gradients cached it


def _itself(tensor: Tensor) -> Tensor:
    return tensor
