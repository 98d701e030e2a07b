"""The bytes alive at the peak of a training step, of any model and with any spec."""

import copy
import inspect
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from actprune.inspect.gradients import Loss
from actprune.inspect.survey import backward
from actprune.strategies.grammar import apply, undo
from actprune_common.errors import InputError

Optimizer = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""One, of which another of its kind is made, or what makes one of parameters."""
_GRAIN = 512
"""Bytes to which CUDA's allocator rounds up."""


def step_peak(
    model: nn.Module,
    batch: Any,
    spec: str = "dense",
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
) -> int:
    """Return the bytes alive at the peak of a step: parameters, gradients, all that is in between.

    It runs on fake tensors, so nothing is allocated, and on real ones where the model reads values.
    What a kernel allocates and frees inside itself is not seen.

    Args:
        model: any; it stays as it is.
        batch: as `survey` takes it.
        spec: what is applied to a copy of the model.
        loss: as `survey` takes it.
        optimizer: its state and its update count too.

    Returns:
        Bytes on the device of the model's parameters.

    Raises:
        InputError: the spec is wrong.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    memo = {id(t): fake.from_tensor(t) for t in (*model.parameters(), *model.buffers())}
    twin = apply(undo(copy.deepcopy(model, memo)), spec)
    batch = dict(batch) if isinstance(batch, Mapping) else batch  # a tokenizer's is of its own kind
    faked = tree_map_only(Tensor, partial(_faked, fake), batch)
    try:
        with _quiet(), fake, torch.compiler.set_stance("force_eager"):
            return _peak(twin, faked, loss, optimizer)
    except InputError:
        raise
    except Exception:  # whatever fake tensors cannot do; what is really wrong is raised again
        return _peak(apply(undo(copy.deepcopy(model)), spec), batch, loss, optimizer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's log of what fake tensors cannot do."""
    log = logging.getLogger(FakeTensorMode.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _faked(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    """A tensor without memory; one that is expanded counts as if it were not."""
    made = fake.from_tensor(tensor)
    return made.contiguous() if 0 in tensor.stride() else made


def _peak(model: nn.Module, batch: Any, loss: Loss | None, optimizer: Optimizer | None) -> int:
    parameters = [p for p in model.parameters() if p.requires_grad]
    alive = Alive(next((p.device.type for p in parameters), "cpu"))
    for tensor in tree_iter((list(model.parameters()), list(model.buffers()), batch)):
        alive.add(tensor)
    if isinstance(optimizer, torch.optim.Optimizer):
        takes = inspect.signature(type(optimizer)).parameters
        known = {name: value for name, value in optimizer.defaults.items() if name in takes}
        updating: Any = type(optimizer)(parameters, **known)
    else:
        updating = None if optimizer is None else optimizer(parameters)
    with alive:
        for _ in range(2 if updating else 1):  # the second holds the optimizer's state
            backward(model, batch, loss)
            if updating:
                alive.updating = True
                updating.step()
                alive.updating = False
                model.zero_grad(set_to_none=True)
    return alive.peak


class Alive(TorchDispatchMode):
    """The bytes of all storages that are alive, and the most that there were."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.now, self.peak, self.updating = device, 0, 0, False
        self.sizes: dict[int, int] = {}
        """Of the storages that are alive, by address."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = self.updating and func is torch.ops.aten._local_scalar_dense.default
        if read and isinstance(args[0], FakeTensor):
            return 0.5  # a count of steps or a power of a decay: any does
        out = func(*args, **(kwargs or {}))
        for part in tree_iter(out):
            self.add(part)
        return out

    def add(self, part: Any) -> None:
        """Count the storage of a tensor until it is freed, once."""
        if not isinstance(part, Tensor) or part.device.type != self.device:
            return
        storage = part.untyped_storage()
        if storage._cdata in self.sizes:
            return
        size = storage.nbytes()
        size += -size % _GRAIN if self.device == "cuda" else 0
        self.sizes[storage._cdata] = size
        weakref.finalize(storage, self._freed, storage._cdata).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, address: int) -> None:
        self.now -= self.sizes.pop(address)
