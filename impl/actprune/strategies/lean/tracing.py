"""The graph that torch.fx makes of a module's forward, refused where it may not be the module's.

torch.fx runs forward once, with placeholders. What forward does on the side (sets an attribute,
draws a number, makes a tensor, enters autocast) is then in no graph, and what it asks a placeholder
that needs no value (whether it is None, of which type it is) has the wrong answer.
"""

import copy
import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from actprune.layers.linear import Pruned
from actprune.strategies.lean.forms import has_form
from actprune.strategies.lean.forward import is_replaced, own_way, parameters_of

_SIGNS = "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"
AUGMENTED = tuple(getattr(operator, f"i{name}") for name in _SIGNS)
"""x += y and the like, which change x in place."""
Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]


class UntraceableError(Exception):
    """A forward of which torch.fx makes no graph, or the wrong one; the reason is its text."""


def trace(module: nn.Module) -> fx.Graph:
    """What `module`'s class does in training mode where every argument has its default.

    Placeholders are the arguments that have none. Modules within that have hooks or a forward of
    their own are called, not looked into. `module` is left as it was. Raises UntraceableError.
    """
    if is_replaced(module):
        raise UntraceableError("its forward is replaced")
    parameters = parameters_of(module)
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise UntraceableError("its forward takes *args or **kwargs")
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = True
    before = [(held, copy.copy(held)) for held in _containers(vars(part) for part, _ in modes)]
    numbers = random.getstate(), np.random.get_state()
    try:
        with torch.enable_grad(), _NoTensors():  # type: ignore[no-untyped-call]
            tracer = _Tracer()
            graph = tracer.trace(module)
    except Exception as problem:  # whatever a forward does with a tensor that has no values
        text = str(problem).partition("\n")[0] or type(problem).__name__
        raise UntraceableError(text) from problem
    finally:
        changed = [name for held, old in before for name in _put_back(held, old)]
        drawn = not _same_numbers(*numbers)
        for part, mode in modes:
            part.training = mode
    if changed:
        raise UntraceableError(f"its forward changes {', '.join(dict.fromkeys(changed))}")
    if drawn:
        raise UntraceableError("its forward draws a random number")
    if tracer.asked:
        raise UntraceableError("its forward asks of which type a value is")
    return graph


def is_called(module: nn.Module) -> bool:
    """Whether a graph calls a module, whatever is in it."""
    return isinstance(module, Pruned | nn.Linear) or has_form(module)


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.modes = _modes()
        self.asked = False
        """Whether anybody but torch.fx asked of which type a placeholder is."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = super().is_leaf_module(m, module_qualified_name)
        return leaf or is_called(m) or bool(own_way(m))

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        positional: list[Any] = [self.root]
        named: dict[str, Any] = {}
        for parameter in parameters_of(self.root):
            value = parameter.default
            if value is parameter.empty:
                value = self.create_proxy("placeholder", parameter.name, (), {})
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[parameter.name] = value
            else:
                positional.append(value)

        def forward(*args: Any) -> Any:  # no partial: torch 2.9 asks for annotations
            return root_fn(*args, **named)

        return forward, positional

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            modes = "gradients, autocast or checkpointing"
            raise UntraceableError(f"its forward switches {modes} within")
        return super().create_node(*args, **kwargs)

    def create_arg(self, a: Any) -> Any:
        # not by way of torch's own, which asks of which types a placeholder is not
        return a.node if isinstance(a, fx.Proxy) else super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """A placeholder that notes where somebody asks of which type it is."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        self.tracer.asked = True  # type: ignore[attr-defined]
        return _Proxy


def _augmented(function: Callable[..., Any]) -> Callable[[_Proxy, Any], fx.Proxy]:
    def record(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _function in AUGMENTED:  # fx.Proxy makes x = x + y of it, which leaves another name's x alone
    setattr(_Proxy, f"__{_function.__name__}__", _augmented(_function))


class _NoTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Placeholders compute nothing: whatever does is the same in every run of the graph."""

    def __torch_dispatch__(self, func: Any, *_: Any) -> Tensor:
        text = f"makes a tensor ({func}) of no input, parameter or buffer"
        raise UntraceableError(f"its forward {text}")


def _modes() -> tuple[object, ...]:
    kinds = "cpu", "cuda"
    return (
        torch.is_grad_enabled(),
        *(torch.is_autocast_enabled(kind) for kind in kinds),
        *(torch.get_autocast_dtype(kind) for kind in kinds),
        torch._C._autograd._top_saved_tensors_default_hooks(True),  # checkpoint, save_on_cpu
    )


def _containers(roots: Iterable[Container]) -> Iterator[Container]:
    """The roots and every container in them, in these, and so on."""
    stack, seen = list(roots), set()
    while stack:
        held = stack.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        yield held
        values = held.values() if isinstance(held, dict) else held
        stack += [value for value in values if isinstance(value, dict | list | set | deque)]


def _put_back(held: Container, old: Container) -> list[str]:
    """Give a container the very members that it had; names or types of what was other."""
    if isinstance(held, dict) and isinstance(old, dict):
        none = object()
        every = {**held, **old}
        other = [str(name) for name in every if held.get(name, none) is not old.get(name, none)]
    else:
        same = [id(value) for value in held] == [id(value) for value in old]
        other = [] if same else [f"a {type(held).__name__}"]
    if other:
        held.clear()
        held.extend(old) if isinstance(held, list | deque) else held.update(old)
    return other


def _same_numbers(python: Any, numpy: Any) -> bool:
    """Whether nobody has drawn from either since; they go on from there."""
    now = np.random.get_state()
    pairs = zip(numpy, now, strict=True)
    same = python == random.getstate() and all(np.array_equal(a, b) for a, b in pairs)
    random.setstate(python)
    np.random.set_state(numpy)
    return same
