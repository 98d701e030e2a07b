"""A forward pass that is watched: which tensors autograd saves, where they come from."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from actprune.saved.operators import PRODUCT_COST, Operator, operator
from actprune.saved.stores import Codes, lossless

SMALL = 16384
"""Bytes up to which a tensor is kept as it is."""


class Value:
    """The content of a storage, as one operator left it."""

    __slots__ = ("cost", "dtype", "group", "inside", "nbytes", "recipe", "ref", "store", "version")

    def __init__(self, storage, dtype, version: int, inside: bool) -> None:
        self.ref, self.nbytes = StorageWeakRef(storage), storage.nbytes()
        self.dtype, self.version, self.inside = dtype, version, inside
        self.group = 128
        self.recipe = None
        self.store = None

    def flat(self, memo=None) -> Tensor:
        """All of the storage, in one dimension."""
        if self.store is not None:
            return self.store.flat() if not isinstance(self.store, Tensor) else self.store
        memo = {} if memo is None else memo
        if id(self) not in memo:
            memo[id(self)] = self.recipe.run(memo)
        return memo[id(self)]


class Ref:
    """A view of a value."""

    __slots__ = ("dtype", "offset", "size", "stride", "value")

    def __init__(self, value: Value, t: Tensor) -> None:
        self.value, self.dtype = value, t.dtype
        self.size, self.stride, self.offset = t.size(), t.stride(), t.storage_offset()

    def tensor(self, memo) -> Tensor:
        flat = self.value.flat(memo)
        if flat.dtype != self.dtype:
            flat = flat.view(self.dtype)
        return flat.as_strided(self.size, self.stride, self.offset)


class Recipe:
    """The operator that made a value, with its arguments."""

    __slots__ = ("args", "func", "index", "kwargs", "op", "parents")

    def __init__(self, func, op, args, kwargs, index, parents) -> None:
        self.func, self.op, self.args, self.kwargs, self.index = func, op, args, kwargs, index
        self.parents = parents

    def run(self, memo) -> Tensor:
        def real(a):
            if isinstance(a, Ref):
                return a.tensor(memo)
            if isinstance(a, (list, tuple)):
                return type(a)([real(x) for x in a])
            return a

        args = [real(a) for a in self.args]
        if self.op.mutates:
            target = self.args[0]
            flat = args[0]._base if args[0]._base is not None else args[0]
            flat = target.value.flat(memo)
            flat = flat.clone()
            args[0] = flat.as_strided(target.size, target.stride, target.offset)
            self.func(*args, **self.kwargs)
            return flat
        out = self.func(*args, **self.kwargs)
        if self.index is not None:
            out = out[self.index]
        if out.storage_offset() or out.untyped_storage().nbytes() != out.nbytes:
            raise RuntimeError("layout")
        return out.as_strided((out.numel(),), (1,), 0)


def group_of(shape, most=128):
    for inner in ((shape[-1],) if len(shape) < 4 else (shape[-1] * shape[-2], shape[-1])):
        for g in range(most, 31, -2):
            if inner % g == 0:
                return g
    return most


class Saved:
    __slots__ = ("ref", "tensor")

    def __init__(self, t):
        self.tensor, self.ref = t, None


class Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module, bits: int = 4, budget: int = 8, products: bool = False) -> None:
        super().__init__()
        self.own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
        self.values: dict[int, Value] = {}
        self.pending: list[Saved] = []
        self.bits, self.budget = bits, budget + (PRODUCT_COST * products)
        self.last: Operator | None = None
        self.busy = False
        self.log = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.busy:
            return func(*args, **kwargs)
        op = operator(func)
        if op.view:
            return func(*args, **kwargs)
        if self.pending:
            self.settle(op)
        recipe = None
        if op.cost is not None:
            parents: list[Value] = []
            taken = [self.captured(a, parents) for a in args], {k: self.captured(v, parents) for k, v in kwargs.items()}
        out = func(*args, **kwargs)
        self.last = op
        outs = out if isinstance(out, (tuple, list)) else (out,)
        for index, made in enumerate(outs):
            if isinstance(made, Tensor) and type(made) is Tensor:
                storage = made.untyped_storage()
                key = storage._cdata
                if key in self.own:
                    continue
                # autograd counts a mutation after the operator is done
                value = Value(storage, made.dtype, made._version + op.mutates, True)
                if op.cost is not None:
                    value.recipe = Recipe(func, op, *taken, index if out is not made else None, parents)
                value.group = made.shape
                self.values[key] = value
        return out

    def captured(self, a, parents):
        if isinstance(a, Tensor):
            if a.untyped_storage()._cdata in self.own:
                return a.detach() if a.requires_grad else a
            value = self.value_of(a)
            parents.append(value)
            return Ref(value, a)
        if isinstance(a, (list, tuple)):
            return type(a)([self.captured(x, parents) for x in a])
        return a

    def value_of(self, t: Tensor) -> Value:
        storage = t.untyped_storage()
        value = self.values.get(storage._cdata)
        if value is None or value.ref.expired() or value.version != t._version:
            value = self.values[storage._cdata] = Value(storage, t.dtype, t._version, value is not None and not value.ref.expired())
        return value

    def pack(self, t: Tensor):
        if self.busy:
            return t
        if type(t) is not Tensor or t.nbytes <= SMALL or t.untyped_storage()._cdata in self.own or (t.is_leaf and t.requires_grad):
            self.busy = True
            try:
                return t.detach() if not t.is_leaf else t
            finally:
                self.busy = False
        saved = Saved(t)
        self.pending.append(saved)
        return saved

    def unpack(self, saved):
        if isinstance(saved, Tensor):
            return saved
        if saved.tensor is not None:
            return saved.tensor
        with torch.no_grad():
            return saved.ref.tensor({})

    def cost(self, value: Value, limit: int) -> int | None:
        """Passes to make a value again, or None where it can't be, or costs more than limit."""
        if value.store is not None:
            return 0
        if value.recipe is None or value.recipe.op.cost > limit:
            return None
        cost = value.recipe.op.cost
        for parent in value.recipe.parents:
            more = self.cost(parent, limit - cost)
            if more is None:
                return None
            cost += more
        return cost if cost <= limit else None

    def bits_of(self, op, value):
        kind = op.kind if op else "rest"
        return self.bits if isinstance(self.bits, int) else self.bits.get(kind, 4)

    def settle(self, op: Operator | None) -> None:
        self.busy = True
        try:
            with torch.no_grad():
                for saved in self.pending:
                    self.decide(saved, op)
        finally:
            self.pending.clear()
            self.busy = False

    def decide(self, saved: Saved, op) -> None:
        t = saved.tensor
        value = self.value_of(t)
        kind = op.kind if op else "rest"
        grad = t.requires_grad
        saved.tensor = t if t.grad_fn is None else t.detach()
        if not value.inside and not grad:
            self.log.append((op and op.name, "outside", t.nbytes, t.nbytes))
            return
        if value.store is None:
            cost = self.cost(value, self.budget)
            if cost is not None:
                self.log.append((op and op.name, f"recipe {cost}", t.nbytes, 0))
            else:
                storage = t.untyped_storage()
                flat = torch.empty(0, dtype=t.dtype).set_(storage)
                if not t.is_floating_point() or not (grad or kind in ("linear", "conv")):
                    value.store = lossless(flat)
                elif 2 * t.nbytes < storage.nbytes():
                    same = sum(s.tensor is not None and s.tensor.untyped_storage()._cdata == storage._cdata for s in self.pending)
                    if same * t.nbytes * 2 >= storage.nbytes():
                        value.store = Codes(flat, self.bits_of(op, value), group_of(value.group if isinstance(value.group, torch.Size) else t.shape))
                    else:
                        part = t.contiguous()
                        own = Value(part.untyped_storage(), t.dtype, 0, True)
                        own.store = Codes(part.view(-1), self.bits_of(op, value), group_of(part.shape))
                        saved.ref, saved.tensor = Ref(own, part), None
                        self.log.append((op and op.name, "part", t.nbytes, own.store.nbytes))
                        return
                else:
                    value.store = Codes(flat, self.bits_of(op, value), group_of(value.group if isinstance(value.group, torch.Size) else t.shape))
                if value.store is None:
                    self.log.append((op and op.name, "whole", t.nbytes, t.nbytes))
                    return
                value.recipe = None
                self.log.append((op and op.name, type(value.store).__name__, t.nbytes, value.store.nbytes))
        else:
            self.log.append((op and op.name, "shared", t.nbytes, 0))
        saved.ref, saved.tensor = Ref(value, t), None

    def __exit__(self, *a):
        if self.pending:
            self.settle(None)
        self.values.clear()
        return super().__exit__(*a)


def applied(model, **options):
    forward = model.forward

    def wrapped(*args, **kwargs):
        recorder = Recorder(model, **options)
        model._recorder = recorder
        with recorder, saved_tensors_hooks(recorder.pack, recorder.unpack):
            return forward(*args, **kwargs)

    model.forward = wrapped
    return model
