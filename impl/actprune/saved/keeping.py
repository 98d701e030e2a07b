"""What stands for a tensor that autograd saves: its store, or how it is made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actprune.formats import Codes, Dense, Derivative, Format
from actprune.layers.draws import draw_for
from actprune.layers.foreign import torch_alone
from actprune.saved.contents import Contents
from actprune.saved.derivatives import error_of, refusal
from actprune.saved.known import Known
from actprune.saved.operators import ACTIVATION, ATTENTION, LINEAR, PRODUCTS, Operator, operator
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
    autocast_of,
    covered,
    fits,
    flat_of,
    is_plain,
    is_small,
    is_whole,
    without_graph,
)
from actprune.saved.values import Given, Recipe, Value, View

STATISTIC = 16
"""So many times fewer values than a function takes: they are kept as they are."""
Formats = Mapping[str, Format]
"""By kind; under the name of `derivative` that, where a rule asks for it."""
AUTOCAST = {"linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv1d", "conv2d", "conv3d"}
AUTOCAST |= {"scaled_dot_product_attention"}
"""Functions whose arguments autocast casts."""


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


class Keeping:
    """Keeps what functions save as `formats` say, or as a recipe of at most `limit` passes."""

    def __init__(self, known: Known, formats: Formats, limit: int, log: list[Saved] | None) -> None:
        self.known, self.formats, self.limit = known, formats, limit
        self.module, self.log = "", log

    @property
    def derivative(self) -> Derivative | None:
        """What a rule keeps of activations in place of their input, where one does."""
        found = self.formats.get(Derivative.name)
        return found if isinstance(found, Derivative) else None

    def derivative_for(
        self, found: Operator, given: list[Any], h: Tensor, *, in_place: bool
    ) -> Derivative | None:
        """Return what a function keeps in place of its input h; None where that stays or is kept.

        It does so where it is small, a weight, or costs nothing: others keep it, or it is made
        again. A function that is `in_place` keeps a copy.
        """
        if refusal(found, given) or not (h.requires_grad and torch.is_grad_enabled()):
            return None
        if not is_plain(h) or h.dtype not in FLOATS or is_small(h) or torch_alone():
            return None
        if self.known.is_weight(h):
            return None
        value = self.known.find(h)
        if value is None or in_place:
            return None if h.is_leaf else self.derivative
        others = self.formats[ACTIVATION]
        bits = others.bits if isinstance(others, Codes) else 0
        again = not isinstance(others, Dense) and value.cost(self.limit, bits) is not None
        free = again or isinstance(value.store, Whole)
        return None if free or (h.is_leaf and not value.made) else self.derivative

    def log_derivative(self, name: str, format: Derivative, h: Tensor, codes: Tensor) -> None:
        """Note what a function at h keeps."""
        assert self.log is not None
        error = error_of(codes, h, format.bits, name)
        sizes = h.nbytes, codes.nbytes
        self.log.append(Saved(self.module, name, ACTIVATION, *sizes, format.spec, error))

    def kept(
        self,
        tensor: Tensor,
        value: Value | None,
        found: Operator,
        args: list[Any],
        *,
        made: bool = False,
    ) -> View | Given:
        """Return what stands for a tensor that a function saves: a view of a value, or itself.

        value: of its storage, where it is known. args: of the function. made: the tensor is its
        result, or one that it made on the way.
        """
        known, kind = self.known, found.kind
        if kind == LINEAR and not known.any_weight(args):
            kind = ATTENTION
        weights = self._cast_of(tensor, args) if made else []
        if weights:
            # there are casts of weights alone within these, and one may be the other's twin
            sure = found.name in AUTOCAST and len(weights) == 1
            sure = sure and not self._may_be_copied(tensor, found, args)
            kept, held, store = self._cast_again(tensor, weights[0] if sure else None)
        else:
            value = value or known.value(tensor)
            value.made = value.made or made
            kept, held, store = self._stored(tensor, value, kind, args)
        if self.log is not None:
            why = refusal(found, args) if kind == ACTIVATION and self.derivative else None
            store = f"{store}; {why}" if why and held else store
            self.log.append(self._noted(tensor, found.name, kind, kept, held, store))
        return kept if isinstance(kept, View) else Given(kept, tensor._version)

    def _stored(
        self, tensor: Tensor, value: Value, kind: str, args: list[Any]
    ) -> tuple[View | Tensor, int, str]:
        """What stands for a tensor, the bytes that it adds, and the name of its store."""
        format, bytes_ = self.formats[kind], tensor.nbytes
        if not value.made and (tensor.is_leaf or not tensor.requires_grad):
            return without_graph(tensor), 0, "alive anyway"
        if isinstance(format, Dense) and not isinstance(value.store, Whole | Bits | Narrow):
            return _whole(value, tensor), bytes_, "dense"  # in place of a store for others
        if isinstance(value.store, Pruned) and kind not in PRODUCTS:
            value = self._another(tensor, value)  # a pruned tensor serves products alone
        bits = format.bits if isinstance(format, Codes) else 0
        before = value.store
        if before is not None and not (isinstance(before, Coded) and before.bits < bits):
            return _view(value, tensor), 0, f"shares {before.name}"
        small = is_small(tensor)
        if small or self._is_statistic(tensor, args):
            return _as_it_is(tensor, value), bytes_, "small" if small else "statistic"
        codable = tensor.dtype in FLOATS and (tensor.requires_grad or kind in PRODUCTS)
        prunes = codable and not isinstance(format, Codes)
        if not prunes and before is None and value.cost(self.limit, bits) is not None:
            return _view(value, tensor), 0, f"again by {value.recipe.operator.name}"  # type: ignore[union-attr]
        whole, base, bare = tensor.untyped_storage().nbytes(), value, tensor
        apart = whole > 2 * bytes_ and whole > 2 * covered(tensor, args)
        if apart or (prunes and not is_whole(tensor)):
            tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
            whole, value = tensor.nbytes, Value(tensor)
        store = _store(tensor, value, format) if codable else lossless(flat_of(tensor.detach()))
        if store is None or store.nbytes >= whole:
            kept = _whole(base, bare) if base is value else without_graph(bare)
            return kept, bytes_, "whole: " + ("no store is smaller" if store else "not coded")
        instead = before.nbytes if before and base is value else 0
        value.store, value.recipe = store, None
        return _view(value, tensor), store.nbytes - instead, store.name

    def _another(self, tensor: Tensor, known: Value) -> Value:
        """A second value of a storage, that can have a store of its own."""
        value = self.known.values[known.key] = Value(tensor)
        value.made, value.shape, value.stride = known.made, known.shape, known.stride
        return value

    def _is_statistic(self, tensor: Tensor, args: list[Any]) -> bool:
        """Whether it is a mean, a norm, a sum of exponentials: few values, of which each decides
        about many others."""
        many = STATISTIC * tensor.numel()
        return any(
            isinstance(part, Tensor)
            and part.numel() >= many
            and is_plain(part)
            and not self.known.is_weight(part)
            for part in args
        )

    def _cast_of(self, tensor: Tensor, args: list[Any]) -> list[Tensor]:
        """The weights of which autocast may have made this tensor, which the function saves."""
        if autocast_of(tensor) is None:
            return []
        weights = (part for part in args if isinstance(part, Tensor) and part.dim())
        return [
            part
            for part in weights
            if part.dtype != tensor.dtype and fits(tensor, part) and self.known.is_weight(part)
        ]

    def _may_be_copied(self, tensor: Tensor, found: Operator, args: list[Any]) -> bool:
        """Whether a product may have made this tensor by bringing an activation into order."""
        parts = [part for part in args if isinstance(part, Tensor) and part.numel()]
        size = tensor.numel()
        if found.name == "matmul" and any(part.dim() > 2 for part in parts):  # it repeats, too
            copied = [part for part in parts if size % part.numel() == 0]
        else:
            copied = [part for part in parts if size == part.numel() and not part.is_contiguous()]
        return not all(map(self.known.is_weight, copied))

    def _cast_again(self, tensor: Tensor, weight: Tensor | None) -> tuple[View | Tensor, int, str]:
        if weight is None or not _lies_as(tensor, weight):
            return without_graph(tensor), tensor.nbytes, "weight"
        value = Value(tensor)
        value.shape, value.stride = weight.shape, weight.stride()
        given = Given(without_graph(weight), weight._version)
        value.recipe = Recipe(Tensor.to, operator(Tensor.to), (given, tensor.dtype), {}, [])
        return View(value, tensor), 0, "again by to"

    def _noted(
        self, tensor: Tensor, name: str, kind: str, kept: View | Tensor, held: int, store: str
    ) -> Saved:
        error = None
        if isinstance(kept, View) and tensor.dtype in FLOATS:
            with torch.no_grad():
                off = (Contents().tensor(kept).double() - tensor.double()).norm()
                error = float(off / tensor.double().norm().clamp(min=1e-300))
            kept.value.uses += 1
        return Saved(self.module, name, kind, tensor.nbytes, held, store, error)


def _lies_as(cast: Tensor, weight: Tensor) -> bool:
    """Whether a cast is `weight.to` it all, perhaps transposed, and no copy in another order."""
    views = (cast, cast.t()) if cast.dim() == 2 else (cast,)
    same = any((view.shape, view.stride()) == (weight.shape, weight.stride()) for view in views)
    alone = cast.untyped_storage().nbytes() == cast.nbytes
    return same and alone and bool(torch.ops.aten.is_non_overlapping_and_dense(weight))


def _store(tensor: Tensor, value: Value, format: Format) -> Store:
    flat = flat_of(tensor.detach())
    if isinstance(format, Codes):
        return Coded(flat, format.bits, group_of(value.shape, value.stride, format.group))
    features = tensor.shape[-1] if tensor.dim() != 4 else tensor[0, 0].numel()
    draw = None
    if format.stochastic:  # what else reads the same tensor shares the store
        draw = draw_for(format.first_draw().to(tensor.device), tensor)
    return Pruned(flat, features, format, draw)


def _as_it_is(tensor: Tensor, value: Value) -> Tensor:
    """A few values, without a storage of many."""
    storage, bare = tensor.untyped_storage().nbytes(), without_graph(tensor)
    if storage == tensor.nbytes:
        value.store = Whole(flat_of(bare))
    return bare.clone() if 2 * tensor.nbytes < storage else bare


def _whole(value: Value, tensor: Tensor) -> View:
    """The tensor itself, for all that it serves: its storage is alive from now on."""
    value.store, value.recipe = Whole(flat_of(without_graph(tensor))), None
    return _view(value, tensor)


def _view(value: Value, tensor: Tensor) -> View:
    value.uses += 1
    return View(value, tensor)
