"""The modules of a model that the nodes of its graphs come from."""

import re
from typing import Any

from torch import fx

_LOCAL = re.compile(r"^L\[['\"]\w+['\"]\]|^L__\w+?___|^self")
_ITEM = re.compile(r"(?:\._modules)?\[['\"]?([^'\"\]]+)['\"]?\]")


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
    return _ITEM.sub(r".\1", _LOCAL.sub("", path)).lstrip(".")
