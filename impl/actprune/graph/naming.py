"""The names of nodes, and the modules of a model that they come from."""

import re
from typing import Any

from torch import fx
from torch.fx.graph import _Namespace

from actprune.graph.values import tensors

_LOCAL = re.compile(r"^[LG]\[['\"]\w+['\"]\]|^L__\w+?___|^self")
_REPLACED = re.compile(r"\.forward(\.beneath)*\.module(?=\.|$)")
"""A module, as the replacement of its own forward calls it (strategies.base)."""
_NUMBERS = re.compile(r"(_\d+)+$")
_ITEM = re.compile(r"(?:\._modules)?\[['\"]?([^'\"\]]+)['\"]?\]")


def number(graph: fx.Graph) -> None:
    """Name nodes by their operators and numbers that do not depend on whether sizes are fixed.

    Where they are not, there are operators on sizes, which would count. A copy has the same names.
    """
    names = _Namespace()
    for node in graph.nodes:
        name = node.name
        if node.op == "call_function":
            name = _NUMBERS.sub("", name) if any(True for _ in tensors(node)) else "number"
        node.name = names.create_name(name, None)
    graph._graph_namespace = names


def module_of(node: fx.Node) -> str:
    """Return the name of the module whose forward made a node; empty where nothing tells.

    It starts at what was compiled: of a function that calls a model, at the model.
    """
    return _innermost(node.meta.get("nn_module_stack"))


def reader_of(node: fx.Node) -> str:
    """Return the name of the module whose backward pass an operator is part of."""
    return _innermost(node.meta.get("fwd_nn_module_stack"))


def _innermost(stack: Any) -> str:
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    return _ITEM.sub(r".\1", _REPLACED.sub("", _LOCAL.sub("", path))).lstrip(".")
