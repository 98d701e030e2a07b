"""What a forward pass computes: each storage's content, how it is kept, how it was made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from actprune.saved.operators import Operator
from actprune.saved.stores import Coded, Pruned, Store, Whole, unchanged

_expired = torch.UntypedStorage._expired


class Value:
    """The content of a storage at one time."""

    __slots__ = (
        *("key", "made", "recipe", "shape", "storage", "store", "stride"),
        *("uses", "version", "weight"),
    )

    def __init__(self, tensor: Tensor, *, made: bool = True) -> None:
        storage = tensor.untyped_storage()
        self.key: int = storage._cdata
        self.storage = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self.version = tensor._version
        self.shape, self.stride = tensor.shape, tensor.stride()
        self.made = made
        """Within the forward pass, so that nobody else is known to hold it."""
        self.weight = False
        """Whether it was computed from weights alone."""
        self.recipe: Recipe | None = None
        self.store: Store | None = None
        self.uses = 0
        """By tensors that autograd has saved and not yet asked for."""

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is still the content of the storage of `tensor`, which is at its address."""
        return self.version == tensor._version and not _expired(self.storage.cdata)

    def cost(self, limit: int, bits: int = 0) -> int | None:
        """Passes over memory that make it again; None where it can't be, or takes over `limit`, or
        where it comes of codes of fewer bits."""
        if isinstance(self.store, Pruned):
            return None  # it serves products alone
        if isinstance(self.store, Coded) and self.store.bits < bits:
            return None
        if self.store is not None:
            return 0 if isinstance(self.store, Whole) else 1
        if self.recipe is None:
            return None
        cost = self.recipe.operator.passes or 0
        for parent in self.recipe.parents:
            more = parent.cost(limit - cost, bits) if cost <= limit else None
            if more is None:
                return None
            cost += more
        return cost if cost <= limit else None


class View:
    """A tensor as a view of a value."""

    __slots__ = ("dtype", "offset", "size", "stride", "value")

    def __init__(self, value: Value, tensor: Tensor) -> None:
        self.value, self.dtype = value, tensor.dtype
        self.size, self.stride = tensor.size(), tensor.stride()
        self.offset = tensor.storage_offset()

    def of(self, flat: Tensor) -> Tensor:
        """The tensor, out of the value's content."""
        if flat.dtype != self.dtype:
            flat = flat.view(self.dtype)
        return flat.as_strided(self.size, self.stride, self.offset)


@dataclass(slots=True)
class Given:
    """A tensor that is alive anyway: a weight, the batch, or one too small to matter."""

    tensor: Tensor
    version: int

    def now(self) -> Tensor:
        """The tensor. Raises RuntimeError where it was changed in place since."""
        tensor = self.tensor
        return tensor if tensor._version == self.version else unchanged(tensor, self.version)

    def keep(self) -> None:
        """Hold a copy from now on, as somebody is about to change the tensor."""
        self.tensor = self.now().detach().clone()
        self.version = self.tensor._version


@dataclass(eq=False, slots=True)
class Recipe:
    """The function that made a value, with its arguments; tensors among them are Views or Given."""

    func: Callable[..., Any]
    operator: Operator
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parents: list[Value]
    index: int | None = None
    """Which of several results."""
    autocast: tuple[str, torch.dtype] | None = None
    """The device and dtype of the autocast that it ran under."""
