"""A forward pass that is watched: what autograd saves goes into stores, as rules say."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from actprune.formats import Codes, Dense, Format
from actprune.layers.draws import draw_for
from actprune.saved.contents import Contents, normalized
from actprune.saved.operators import (
    ATTENTION,
    LINEAR,
    PRODUCT_PASSES,
    PRODUCTS,
    REST,
    Operator,
    operator,
    repeats,
)
from actprune.saved.stores import (
    FLOATS,
    Bits,
    Coded,
    Narrow,
    Pruned,
    Store,
    Whole,
    group_of,
    lossless,
)
from actprune.saved.tensors import (
    among,
    autocast_of,
    covered,
    fits,
    flat_of,
    is_plain,
    is_strided,
    is_whole,
    key_of,
    parts_of,
    without_graph,
)
from actprune.saved.values import Given, Recipe, Value, View

SMALL = 4096
"""Bytes up to which a tensor is kept as it is."""
STATISTIC = 16
"""So many times fewer values than a function takes: they are kept as they are."""
PASSES = 6
"""Copies of its result that making a value again may cost: about what coding it would."""
Formats = Mapping[str, Format]
"""By kind."""
Taken = tuple[tuple[Any, ...], dict[str, Any], list[Value]]
_UNKNOWN = Operator("", REST, None, False, False, False)
"""A function of autograd's own kind, which no mode sees."""
_AUTOCAST = {"linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv1d", "conv2d", "conv3d"}
_AUTOCAST |= {"scaled_dot_product_attention"}


@dataclass(frozen=True)
class Saved:
    """One tensor that autograd saved, as `survey` lists it."""

    module: str
    function: str
    kind: str
    nbytes: int
    """Of the tensor."""
    held: int
    """What its store added."""
    store: str
    """The store, or why there is none."""
    error: float | None = None
    """‖x̂ - x‖ / ‖x‖ of what the backward pass gets."""


class Cell:
    """What autograd holds in place of a tensor."""

    __slots__ = ("kept",)

    def __init__(self, kept: Any) -> None:
        self.kept = kept


class Recorder(TorchFunctionMode):
    """A context in which what autograd saves is kept as `formats` say, by what it is saved for.

    It knows the function that saves a tensor, the one that made it, and which tensors are weights.
    Tensors that are saved twice, or are views of one another, share a store; what a few passes over
    memory make again from something that is stored has none.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        formats: Formats,
        *,
        inputs: Iterable[Any] = (),
        products: bool = False,
        log: list[Saved] | None = None,
    ) -> None:
        super().__init__()
        self.formats, self.module, self.log = formats, "", log
        self._limit = PASSES + PRODUCT_PASSES * products
        self._weights = {key_of(weight) for weight in weights if is_strided(weight)}
        self._inputs = {key_of(part) for part in inputs if is_plain(part)}
        """What takes a gradient without being a weight."""
        self._values: dict[int, Value] = {}
        self._buffers: dict[int, list[Given]] = {}
        """What recipes read of them: some are updated in the forward pass."""
        self._contents = Contents()
        self._running: Operator | None = None
        self._args: list[Any] = []
        """Of the function that runs: all of them, those in lists too."""
        self._late: list[Cell] = []
        self._last_cast: tuple[Tensor, Tensor] | None = None
        self._hooks: saved_tensors_hooks | None = None

    def __enter__(self) -> "Recorder":
        # these hold the recorder, which must not hold them: it would live on until it is collected
        self._hooks = saved_tensors_hooks(self._pack, partial(_unpacked, self._contents))
        self._hooks.__enter__()
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)  # type: ignore[no-untyped-call]
        assert self._hooks is not None
        self._hooks.__exit__(*problem)
        self._hooks = None
        self._values.clear()
        self._buffers.clear()
        self._last_cast = None

    # Functions: which one runs, and what it makes of what.

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, and note how its results were made."""
        kwargs = kwargs or {}
        found = operator(func)
        if found.free or self._running is not None:
            return func(*args, **kwargs)
        if func is F.batch_norm and args and is_plain(args[0]):
            return self._batch_norm(found, *args, **kwargs)
        given = parts_of(args, kwargs)
        if found.name in _AUTOCAST and given and autocast_of(given[0]):
            args = tuple(self._cast(part) for part in args)
            kwargs = {name: self._cast(part) for name, part in kwargs.items()}
            given = parts_of(args, kwargs)
        again = found.passes is not None and found.passes <= self._limit
        again = again and repeats(found, args, kwargs)
        in_place = found.in_place or bool(kwargs.get("inplace", False))
        if in_place and args and isinstance(args[0], Tensor) and is_strided(args[0]):
            for held in self._buffers.pop(key_of(args[0]), ()):
                held.keep()
            again = again and key_of(args[0]) not in self._weights
        taken = self._captured(args, kwargs, args[:1]) if in_place and again else None
        out = self._run(found, func, args, kwargs, given)
        several = isinstance(out, list | tuple)
        for index, made in enumerate(out if several else (out,)):
            if not is_plain(made):
                continue
            key = key_of(made)
            known = self._values.get(key)
            if (known is not None and known.holds(made)) or key in self._weights:
                continue  # a view
            if not in_place and among(made, given):
                continue  # a view of what is not known, or changed by who does not say so
            weight = made.requires_grad and self._all_weights(given)
            if made.requires_grad and not (again or weight):
                continue
            value = self._values[key] = Value(made)
            value.weight = weight
            if found.ours:
                value.store = Whole(made.detach())
            elif again and made.storage_offset() == 0:
                taken = taken or self._captured(args, kwargs)
                which = found if in_place == found.in_place else replace(found, in_place=in_place)
                autocast = autocast_of(made)
                value.recipe = Recipe(func, which, *taken, index if several else None, autocast)
        self._settle(found, given)
        return out

    def _run(
        self, found: Operator, func: Callable[..., Any], args: Any, kwargs: Any, given: list[Any]
    ) -> Any:
        self._running, self._args = found, given
        try:
            return func(*args, **kwargs)
        except BaseException:
            self._late.clear()
            raise
        finally:
            self._running, self._args = None, []

    def _batch_norm(
        self,
        found: Operator,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """F.batch_norm, which would count a batch twice that it is given again in training. What it
        calls on a CPU gives the batch's statistics as well."""
        again: Callable[..., Tensor] = F.batch_norm
        affine = weight, bias
        simple = input.device.type == "cpu" and not isinstance(input, FakeTensor)
        if training and simple and input.numel() > input.size(1) and autocast_of(input) is None:
            args = [input, *affine, running_mean, running_var, training, momentum, eps]
            out, *statistics = self._run(found, torch.native_batch_norm, args, {}, args)
            again, known = normalized, (input, *(each.detach() for each in statistics), *affine)
        else:
            args = [input, running_mean, running_var, *affine, training, momentum, eps]
            out = self._run(found, F.batch_norm, args, {}, args)
            counted = (None, None) if training else (running_mean, running_var)
            known = input, *counted, *affine, training, 0.0, eps
        captured, named, parents = self._captured(known, {})
        value = self._values[key_of(out)] = Value(out)
        value.weight = self._all_weights(args)
        made_by = again, operator(again), captured, named, parents
        value.recipe = Recipe(*made_by, None, autocast_of(out))
        self._settle(found, args)
        return out  # type: ignore[no-any-return]

    def _cast(self, part: Any) -> Any:
        """An activation in autocast's dtype: one cast for neighbours that read the same tensor,
        where autocast makes one each. Casts of weights are left to autocast, which shares them."""
        if not (is_plain(part) and part.dtype in FLOATS[:3]) or self._is_weight(part):
            return part
        dtype = torch.get_autocast_dtype(part.device.type)
        if part.dtype == dtype:
            return part
        if self._last_cast is None or self._last_cast[0] is not part:
            cast = self.__torch_function__(Tensor.to, (), (part, dtype))
            self._last_cast = part, cast
        return self._last_cast[1]

    def _captured(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], written: tuple[Any, ...] = ()
    ) -> Taken:
        """Arguments as a recipe holds them, and the values among them."""
        parents: list[Value] = []
        # a function within this one that called itself would hold the values until it is collected
        found = tuple(self._capture(part, written, parents) for part in args)
        named = {name: self._capture(part, written, parents) for name, part in kwargs.items()}
        return found, named, parents

    def _capture(self, part: Any, written: tuple[Any, ...], parents: list[Value]) -> Any:
        if isinstance(part, list | tuple):
            taken = [self._capture(each, written, parents) for each in part]
            return taken if isinstance(part, list) else tuple(taken)
        if not isinstance(part, Tensor):
            return part
        plain, lent = is_plain(part), self._lent(part)
        owned = (plain or lent) and key_of(part) in self._weights
        small = part.nbytes <= SMALL
        target = small and any(part is each for each in written)
        if (plain or lent) and not owned and (target or not small):
            value = self._value(part)
            parents.append(value)
            return View(value, part)
        if lent or part.is_inference() or (plain and small):
            part = part.detach().clone()  # others may write to it, or it is of more
            return Given(part, part._version)
        held = Given(without_graph(part), part._version)
        if owned:
            self._buffers.setdefault(key_of(part), []).append(held)
        return held

    def _lent(self, part: Tensor) -> bool:
        """Whether it is a parameter that is none of the model's own: FSDP2 gathers it for the
        module that it is of, and frees it when that has run."""
        return type(part) is nn.Parameter and is_strided(part) and key_of(part) not in self._weights

    def _value(self, tensor: Tensor) -> Value:
        """What the storage of a tensor holds now; it was not made here where it is not known."""
        value = self._values.get(key_of(tensor))
        if value is None or not value.holds(tensor):
            value = self._values[key_of(tensor)] = Value(tensor, made=False)
        return value

    def _is_weight(self, tensor: Tensor) -> bool:
        plain, base = is_plain(tensor), tensor._base
        if type(tensor) is nn.Parameter or type(base) is nn.Parameter:
            return True
        base = tensor if base is None else base
        leaf = base.is_leaf and base.requires_grad
        if not plain:
            return leaf
        where = key_of(tensor)
        if where in self._weights:
            return True
        value = self._values.get(where)
        if value is not None and value.made and value.holds(tensor):
            return value.weight
        return leaf and where not in self._inputs

    def _all_weights(self, args: list[Any]) -> bool:
        """Whether a function computes from weights, and scalars: a norm, a mean."""
        found = False
        for part in args:
            if isinstance(part, Tensor) and part.numel() != 1:
                if not self._is_weight(part):
                    return False
                found = True
        return found

    # Tensors that autograd saves, and what they are kept as.

    def _pack(self, tensor: Tensor) -> Any:
        if not is_plain(tensor) or self._is_weight(tensor):
            return Given(without_graph(tensor), tensor._version)
        value = self._values.get(key_of(tensor))
        if self._running is not None and (value is None or not value.holds(tensor)):
            cell = Cell(tensor)  # perhaps a result, which is known when the function is done
            self._late.append(cell)
            return cell
        return Cell(self._kept(tensor, self._running or _UNKNOWN, self._args))

    def _settle(self, found: Operator, args: list[Any]) -> None:
        late, self._late = self._late, []
        for cell in late:
            made = not among(cell.kept, args)
            cell.kept = self._kept(cell.kept, found, args, made=made)

    def _kept(
        self, tensor: Tensor, found: Operator, args: list[Any], *, made: bool = False
    ) -> View | Given:
        """What stands for a saved tensor: a view of a value, or the tensor itself."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            kind = ATTENTION if found.kind == LINEAR and not self._weighs(args) else found.kind
            weights = self._cast_of(tensor, args) if made else []
            if weights:
                # there are casts of weights alone within these, and one may be the other's twin
                sure = found.name in _AUTOCAST and len(weights) == 1
                weight = weights[0] if sure else None
                return self._noted(tensor, found, kind, *self._cast_again(tensor, weight))
            value = self._value(tensor)
            value.made = value.made or made
            return self._noted(tensor, found, kind, *self._stored(tensor, value, kind, args))

    def _stored(
        self, tensor: Tensor, value: Value, kind: str, args: list[Any]
    ) -> tuple[View | Tensor, int, str]:
        """What stands for a tensor, the bytes that it adds, and the name of its store."""
        format, bare, bytes_ = self.formats[kind], without_graph(tensor), tensor.nbytes
        if not value.made and (tensor.is_leaf or not tensor.requires_grad):
            return bare, 0, "alive anyway"
        if isinstance(format, Dense) and not isinstance(value.store, Whole | Bits | Narrow):
            return self._whole(value, tensor), bytes_, "dense"  # in place of a store for others
        if isinstance(value.store, Pruned) and kind not in PRODUCTS:
            known, value = value, Value(tensor)  # a pruned tensor serves products alone
            value.made, value.shape, value.stride = known.made, known.shape, known.stride
            self._values[key_of(tensor)] = value
        if value.store is not None:
            return self._view(value, tensor), 0, f"shares {value.store.name}"
        if bytes_ <= SMALL or self._is_statistic(tensor, args):
            if tensor.untyped_storage().nbytes() == bytes_:
                value.store = Whole(flat_of(bare))
            elif 2 * bytes_ < tensor.untyped_storage().nbytes():
                bare = bare.clone()  # the rest of its storage need not live
            return bare, bytes_, "small" if bytes_ <= SMALL else "statistic"
        codable = tensor.dtype in FLOATS and (tensor.requires_grad or kind in PRODUCTS)
        prunes = codable and not isinstance(format, Codes)
        if not prunes and value.cost(self._limit) is not None:
            return self._view(value, tensor), 0, f"again by {value.recipe.operator.name}"  # type: ignore[union-attr]
        whole, base = tensor.untyped_storage().nbytes(), value
        if whole > 2 * covered(tensor, args) or (prunes and not is_whole(tensor)):
            tensor = bare.clone(memory_format=torch.contiguous_format)
            value = Value(tensor)
        store: Store | None
        if prunes:
            store = self._pruned(tensor, format)
        elif codable:
            assert isinstance(format, Codes)
            group = group_of(value.shape, value.stride, format.group)
            store = Coded(flat_of(tensor.detach()), format.bits, group)
        else:
            store = lossless(flat_of(tensor.detach()))
        if store is None or store.nbytes >= tensor.untyped_storage().nbytes():
            kept = self._whole(base, bare) if base is value else bare
            return kept, bytes_, "whole: " + ("no store is smaller" if store else "not coded")
        value.store, value.recipe = store, None
        return self._view(value, tensor), store.nbytes, store.name

    def _is_statistic(self, tensor: Tensor, args: list[Any]) -> bool:
        """Whether it is a mean, a norm, a sum of exponentials: few values, of which each decides
        about many others."""
        others = (part for part in args if is_plain(part) and not self._is_weight(part))
        return STATISTIC * tensor.numel() <= max((part.numel() for part in others), default=0)

    def _pruned(self, tensor: Tensor, format: Format) -> Store:
        features = tensor.shape[-1] if tensor.dim() != 4 else tensor[0, 0].numel()
        draw = None
        if format.stochastic:  # what else reads the same tensor shares the store
            draw = draw_for(format.first_draw().to(tensor.device), tensor)
        return Pruned(flat_of(tensor.detach()), features, format, draw)

    def _whole(self, value: Value, tensor: Tensor) -> View:
        """The tensor itself, for all that it serves: its storage is alive from now on."""
        value.store, value.recipe = Whole(flat_of(without_graph(tensor))), None
        return self._view(value, tensor)

    def _view(self, value: Value, tensor: Tensor) -> View:
        value.uses += 1
        return View(value, tensor)

    def _weighs(self, args: list[Any]) -> bool:
        return any(isinstance(part, Tensor) and self._is_weight(part) for part in args)

    def _cast_of(self, tensor: Tensor, args: list[Any]) -> list[Tensor]:
        """The weights of which autocast may have made this tensor, which the function saves."""
        if autocast_of(tensor) is None:
            return []
        weights = (part for part in args if isinstance(part, Tensor) and part.dim())
        return [
            part
            for part in weights
            if part.dtype != tensor.dtype and fits(tensor, part) and self._is_weight(part)
        ]

    def _cast_again(self, tensor: Tensor, weight: Tensor | None) -> tuple[View | Tensor, int, str]:
        dense = weight is not None and torch.ops.aten.is_non_overlapping_and_dense(weight)
        if weight is None or not dense or not is_whole(tensor):
            return without_graph(tensor), tensor.nbytes, "weight"
        value = Value(tensor)
        value.shape, value.stride = weight.shape, weight.stride()
        given = Given(without_graph(weight), weight._version)
        value.recipe = Recipe(Tensor.to, operator(Tensor.to), (given, tensor.dtype), {}, [])
        return View(value, tensor), 0, "again by to"

    def _noted(
        self, tensor: Tensor, found: Operator, kind: str, kept: View | Tensor, held: int, store: str
    ) -> View | Given:
        if self.log is not None:
            error = None
            if isinstance(kept, View) and tensor.dtype in FLOATS:
                with torch.no_grad():
                    off = (Contents().tensor(kept).double() - tensor.double()).norm()
                    error = float(off / tensor.double().norm().clamp(min=1e-300))
                kept.value.uses += 1
            nbytes = tensor.nbytes
            self.log.append(Saved(self.module, found.name, kind, nbytes, held, store, error))
        return kept if isinstance(kept, View) else Given(kept, tensor._version)


def _unpacked(contents: Contents, held: Any) -> Tensor:
    """The tensor that autograd asks for again."""
    kept = held.kept if isinstance(held, Cell) else held
    return contents.tensor(kept) if isinstance(kept, View) else kept.now()
