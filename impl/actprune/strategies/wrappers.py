"""Strategies around a whole forward pass: bf16 autocast, and saved tensors in host memory."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from actprune_common.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


class Within:
    """A module's forward inside contexts; it replaces the module's own."""

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        self.module, self.names = module, tuple(names)
        self.inner = vars(module).get("forward")
        """Another replacement, or None: the class's own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parameter = next(self.module.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        out = self._within(self.names, device, *args, **kwargs)
        # as autocast does it for a loss that is computed within
        return out.float() if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else out

    def _within(
        self, names: tuple[str, ...], device: torch.device, *args: Any, **kwargs: Any
    ) -> Any:
        if names:  # one inside the other: torch.compile traces no ExitStack
            with WRAPPERS[names[0]](device):
                return self._within(names[1:], device, *args, **kwargs)
        own = self.inner or type(self.module).forward.__get__(self.module)
        return own(*args, **kwargs)


def wrap(model: Model, names: Iterable[str]) -> Model:
    """Run `model`'s forward passes within the named WRAPPERS; returns `model`."""
    chosen = [name for name in WRAPPERS if name in set(names)]
    if chosen:
        model.forward = Within(unwrap(model), chosen)
    return model


def unwrap(model: Model) -> Model:
    """Take the wrapper away; returns `model`."""
    found = vars(model).get("forward")
    if isinstance(found, Within):
        del model.forward
        if found.inner is not None:
            model.forward = found.inner
    return model


def to_host(device: torch.device) -> AbstractContextManager[None]:
    """Saved tensors go to pinned host memory and come back in the backward pass; weights stay.

    Raises InputError where the model is on the CPU, whose memory that is. Unmeasured on a GPU.
    """
    if device.type == "cpu":
        raise InputError(
            "offload: expected a model on a GPU, got one on the CPU: all is in host memory"
        )
    return moved_to_host(pin=device.type == "cuda")


def moved_to_host(*, pin: bool) -> saved_tensors_hooks:
    """The hooks of to_host."""

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


def _bf16(device: torch.device) -> AbstractContextManager[None]:
    context: AbstractContextManager[None] = torch.autocast(device.type, torch.bfloat16)
    return context


WRAPPERS: dict[str, Callable[[torch.device], AbstractContextManager[None]]] = {
    "bf16": _bf16,
    "offload": to_host,
}
