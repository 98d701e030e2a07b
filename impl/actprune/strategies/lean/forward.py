"""The forward of a module with lean chains: its graph in training, while what it says holds."""

import inspect
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from actprune.layers.sharding import is_sharded
from actprune.strategies.base import Replacement, replacements

_OWN = vars(nn.Module()).keys()
_PLAIN = (bool, int, float, str, type(None))


class LeanForward(Replacement):
    """A module's forward with its chains lean in training; it replaces the module's own.

    The module's own runs, whose parts are lean by themselves where they can be, in eval mode,
    without gradients, where an argument that has a default is given another value, where one that
    has none is None, True or False, and where what the graph was made of has changed since: hooks,
    training modes, attributes that are numbers, texts or None, and modules exchanged, of the
    modules that the graph does not call.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, inlined: Iterable[nn.Module]) -> None:
        super().__init__(module)
        self.graph = graph
        self.seen = tuple((part, _attributes(part), dict(part._modules)) for part in inlined)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        lean = self.module.training and torch.is_grad_enabled() and not is_fx_symbolic_tracing()
        inputs = self._inputs(*args, **kwargs) if lean and self._holds() else None
        if inputs is None:
            return self.replaced(*args, **kwargs)
        return fx.Interpreter(self.module, graph=self.graph).run(*inputs)

    def _inputs(self, *args: Any, **kwargs: Any) -> list[Any] | None:
        """What the graph's placeholders are given; None where it is not the graph of this call."""
        given = _signature(type(self.module).forward).bind(self.module, *args, **kwargs)
        inputs = []
        for parameter in parameters_of(self.module):
            value = given.arguments.get(parameter.name, parameter.default)
            if parameter.default is not parameter.empty:
                if not _same(value, parameter.default):
                    return None
            elif value is None or isinstance(value, bool):
                return None  # forward may ask whether it `is` that, which tracing does not see
            else:
                inputs.append(value)
        return inputs

    def _holds(self) -> bool:
        return all(
            (part is self.module or not own_way(part))
            and all(_same(vars(part).get(name), value) for name, value in attributes.items())
            and all(part._modules.get(name) is child for name, child in children.items())
            for part, attributes, children in self.seen
        )


def parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Of the forward of `module`'s class, but for self."""
    return list(_signature(type(module).forward).parameters.values())[1:]


# a class is the same in every step, and this takes as long as a linear layer
_signature = lru_cache(maxsize=256)(inspect.signature)


def own_way(module: nn.Module) -> str:
    """Why a call of `module` is not its class's forward, or a lean one; empty where it is."""
    hooks = (
        *(module._forward_pre_hooks, module._forward_hooks),
        *(module._backward_pre_hooks, module._backward_hooks),
    )
    # a chain says itself that it needs its layers' whole weights
    if any(hooks) and not (isinstance(module, nn.Linear) and is_sharded(module)):
        return "it has hooks"
    found = vars(module).get("forward")
    return "" if found is None or isinstance(found, LeanForward) else "its forward is replaced"


def forward_of(module: nn.Module) -> LeanForward | None:
    """Return a module's lean forward, beneath a wrapper where there is one."""
    return next((one for one in replacements(module) if isinstance(one, LeanForward)), None)


def is_replaced(module: nn.Module) -> bool:
    """Whether somebody else's function runs in place of the forward of a module's class."""
    found = replacements(module)
    return (found[-1].beneath if found else vars(module).get("forward")) is not None


def _attributes(part: nn.Module) -> dict[str, object]:
    """What a trace may have seen of a module, but for its parts and tensors, in training mode.

    Of a linear a chain reads the rest when it runs.
    """
    if isinstance(part, nn.Linear):
        return {"training": True}
    seen: dict[str, object] = {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, _PLAIN) and name not in _OWN and not hasattr(nn.Module, name)
    }
    return seen | {"training": True}


def _same(value: object, other: object) -> bool:
    alike = isinstance(value, _PLAIN) and type(value) is type(other)
    return value is other or (alike and value == other)
