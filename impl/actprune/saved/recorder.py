"""A forward pass that is watched: what its functions make of what, and what autograd saves."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from actprune.saved.arguments import Arguments, Taken
from actprune.saved.contents import Contents, normalized
from actprune.saved.derivatives import WithDerivative, input_of
from actprune.saved.keeping import AUTOCAST, Formats, Keeping, Saved
from actprune.saved.known import Known
from actprune.saved.operators import PRODUCT_PASSES, REST, Operator, operator, repeats
from actprune.saved.stores import FLOATS, Whole
from actprune.saved.tensors import (
    among,
    autocast_of,
    is_plain,
    is_small,
    is_strided,
    is_whole,
    key_of,
    parts_of,
    without_graph,
)
from actprune.saved.values import Given, Recipe, Value, View

PASSES = 6
"""Copies of its result that making a value again may cost: about what coding it would."""


class Cell:
    """What autograd holds in place of a tensor that may be a result."""

    __slots__ = ("kept",)

    def __init__(self, kept: Any) -> None:
        self.kept = kept


@dataclass(slots=True)
class Call:
    """One call of a function."""

    found: Operator
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Any]
    """All arguments, those in lists too."""
    again: bool
    """Whether a recipe may repeat it."""
    in_place: bool = False
    taken: Taken | None = None
    """The arguments as a recipe holds them."""


_UNKNOWN = Operator("", REST, None, False, False, False, None, False)
"""A function of autograd's own kind, which no mode sees."""


class Recorder(TorchFunctionMode):
    """A context in which what autograd saves is kept as formats say, by what it is saved for.

    It knows the function that saves a tensor, the one that made it, and which tensors are weights.
    Tensors that are saved twice, or are views of one another, share a store; what a few passes over
    memory make again from something that is stored has none. Every function of a step passes
    through it, so that microseconds count here.
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
        self._limit = PASSES + PRODUCT_PASSES * products
        self._known = Known(weights, inputs)
        self.keeping = Keeping(self._known, formats, self._limit, log)
        self._arguments = Arguments(self._known)
        self._contents = Contents()
        self._call: Call | None = None
        """That runs."""
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
        self._known.values.clear()
        self._arguments.buffers.clear()
        self._last_cast = None

    # Functions: which one runs, and what it makes of what.

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, and note how its results were made."""
        found = operator(func)
        if kwargs is None:
            kwargs = {}
        if found.free or self._call is not None:
            return func(*args, **kwargs)
        if func is F.batch_norm and args and is_plain(args[0]):
            return self._batch_norm(found, *args, **kwargs)
        given = parts_of(args, kwargs)
        if found.name in AUTOCAST and given and autocast_of(given[0]):
            args = tuple(self._cast(part) for part in args)
            kwargs = {name: self._cast(part) for name, part in kwargs.items()}
            given = parts_of(args, kwargs)
        again = found.passes is not None and found.passes <= self._limit
        call = Call(found, func, args, kwargs, given, again and repeats(found, args, kwargs))
        if found.in_place or (kwargs and kwargs.get("inplace")):
            self._before_write(call)
        if found.derivative and self.keeping.derivative is not None:
            out = self._activation(call)
        else:
            out = self._run(call, func, args, kwargs)
        if isinstance(out, Tensor):
            view = out is given[0] if given else False
            view = view or (found.perhaps_view and out._base is not None)
            if (call.in_place or not view) and is_plain(out):
                self._made(out, call, None)
        elif isinstance(out, list | tuple):
            for index, made in enumerate(out):
                if is_plain(made):
                    self._made(made, call, index)
        if self._late:
            self._settle(call)
        return out

    def _run(self, call: Call, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._call = call
        try:
            return func(*args, **kwargs)
        except BaseException:
            self._late.clear()
            raise
        finally:
            self._call = None

    def _activation(self, call: Call) -> Any:
        """What a function gives that keeps its derivative in place of its input, where it may."""
        keeping, found, h = self.keeping, call.found, input_of(call.given)
        format = None
        if h is not None and self._hooks_are_innermost():
            format = keeping.derivative_for(found, call.given, h, in_place=call.in_place)
        if h is None or format is None:
            return self._run(call, call.func, call.args, call.kwargs)
        before = h.detach().clone() if keeping.log is not None else h
        function = partial(call.func, *call.args, **call.kwargs)
        out = self._run(call, WithDerivative.apply, (h, found.name, format.bits, function), {})
        late, self._late = self._late, []
        for cell in late:
            codes = cell.kept
            cell.kept = Given(codes, codes._version)
            if keeping.log is not None:
                keeping.log_derivative(found.name, format, before, codes)
        return out

    def _hooks_are_innermost(self) -> bool:
        """Whether no others see what is saved, as those of a checkpoint do within, which calls the
        function by itself the second time and expects it to save the same."""
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
        return hooks is not None and self._hooks is not None and hooks[0] is self._hooks.pack_hook

    def _before_write(self, call: Call) -> None:
        """What a function must leave to others before it writes into its first argument."""
        call.in_place = True
        if not call.args:
            return
        target = call.args[0]
        if isinstance(target, Tensor) and is_strided(target):
            self._arguments.before_write(target)
            call.again = call.again and key_of(target) not in self._known.weights
        if call.again:
            call.taken = self._arguments.taken(call.args, call.kwargs, call.args[:1])

    def _made(self, made: Tensor, call: Call, index: int | None) -> None:
        """Note a result, and how to make it again. Small ones are only weights, or not."""
        known, found, key = self._known, call.found, key_of(made)
        again = call.again and not is_small(made) and made.storage_offset() == 0
        if known.find(made) is not None or key in known.weights:
            return  # a view
        taken: Taken = ((), {}, [])
        if again:
            taken = call.taken = call.taken or self._arguments.taken(call.args, call.kwargs)
        activations = any(each.made and not each.weight for each in taken[2])
        weight = made.requires_grad and not activations and known.all_weights(call.given)
        keeps = again or weight or found.ours or not made.requires_grad
        if not keeps or (not call.in_place and among(made, call.given)):
            return  # a view of what is not known, or changed by who does not say so
        value = known.values[key] = Value(made)
        value.weight = weight
        if found.ours:
            value.store = Whole(made.detach())
        elif again:
            if call.in_place != found.in_place:
                found = replace(found, in_place=call.in_place)
            value.recipe = Recipe(call.func, found, *taken, index, autocast_of(made))

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
        args: tuple[Any, ...]
        known: tuple[Any, ...]
        if training and simple and input.numel() > input.size(1) and autocast_of(input) is None:
            func: Callable[..., Any] = torch.native_batch_norm
            args = (input, *affine, running_mean, running_var, training, momentum, eps)
            call = Call(found, func, args, {}, [*args], True)
            out, *statistics = self._run(call, func, args, {})
            again, known = normalized, (input, *(each.detach() for each in statistics), *affine)
        else:
            args = (input, running_mean, running_var, *affine, training, momentum, eps)
            call = Call(found, F.batch_norm, args, {}, [*args], True)
            out = self._run(call, F.batch_norm, args, {})
            counted = (None, None) if training else (running_mean, running_var)
            known = input, *counted, *affine, training, 0.0, eps
        value = self._known.values[key_of(out)] = Value(out)
        value.weight = self._known.all_weights(args)
        made_by = again, operator(again), *self._arguments.taken(known, {})
        value.recipe = Recipe(*made_by, None, autocast_of(out))
        self._settle(call)
        return out  # type: ignore[no-any-return]

    def _cast(self, part: Any) -> Any:
        """An activation in autocast's dtype: one cast for neighbours that read the same tensor,
        where autocast makes one each. Casts of weights are left to autocast, which shares them."""
        if not (is_plain(part) and part.dtype in FLOATS[:3]) or self._known.is_weight(part):
            return part
        dtype = torch.get_autocast_dtype(part.device.type)
        if part.dtype == dtype:
            return part
        if self._last_cast is None or self._last_cast[0] is not part:
            cast = self.__torch_function__(Tensor.to, (), (part, dtype))
            self._last_cast = part, cast
        return self._last_cast[1]

    # Tensors that autograd saves.

    def _pack(self, tensor: Tensor) -> Any:
        known, call = self._known, self._call
        value, plain = None, type(tensor) is not nn.Parameter and is_plain(tensor)
        if plain and type(tensor._base) is not nn.Parameter:
            value = known.find(tensor)
        made = value is not None and value.made
        if value.weight if made else not plain or known.is_weight(tensor):  # type: ignore[union-attr]
            return Given(without_graph(tensor), tensor._version)
        if call is None:
            with torch._C.DisableTorchFunction():
                return self.keeping.kept(tensor, value, _UNKNOWN, [])
        if is_small(tensor) and self.keeping.log is None and is_whole(tensor):
            return Given(without_graph(tensor), tensor._version)  # what the rest comes to
        if value is None:
            cell = Cell(tensor)  # perhaps a result, which is known when the function is done
            self._late.append(cell)
            return cell
        return self.keeping.kept(tensor, value, call.found, call.given)

    def _settle(self, call: Call) -> None:
        late, self._late = self._late, []
        for cell in late:
            made = not among(cell.kept, call.given)
            cell.kept = self.keeping.kept(cell.kept, None, call.found, call.given, made=made)


def _unpacked(contents: Contents, held: Any) -> Tensor:
    """The tensor that autograd asks for again."""
    kept = held.kept if type(held) is Cell else held
    return contents.tensor(kept) if type(kept) is View else kept.now()
