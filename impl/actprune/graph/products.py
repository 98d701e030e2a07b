"""Weight gradients, which are computed from the store of a factor."""

from typing import Any

import torch
from torch import Tensor, fx

from actprune.formats import Codes
from actprune.graph.values import Value, hint
from actprune.saved.stores import group_of

_aten: Any = torch.ops.aten


def group_for(tensor: Tensor, format: Codes) -> int:
    """Return how many neighbours of a tensor share a scale."""
    sizes, strides = [hint(n) for n in tensor.shape], [hint(n) for n in tensor.stride()]
    return group_of(sizes, strides, format.group)


def is_weight_gradient(node: fx.Node, view: fx.Node, value: Value) -> bool:
    """Whether an operator is dYᵀ·X of a value X, seen as rows of features, and some dY."""
    if node.target is not _aten.mm.default or node.args[1] is not view:
        return False
    factor, seen, tensor = node.args[0], view.meta["val"], value.tensor
    if not isinstance(factor, fx.Node) or factor is view or tensor is None:
        return False
    turned = is_transposed(factor)
    whole = tensor.is_contiguous() and seen.is_contiguous() and seen.numel() == tensor.numel()
    return bool(turned and whole and seen.shape[1] == tensor.shape[-1])


def is_transposed(node: fx.Node) -> bool:
    """Whether a node turns a matrix; one that is turned twice may be permuted as it is."""
    if node.target is _aten.t.default:
        return True
    dims: Any = node.args[1:]
    if node.target is _aten.permute.default:
        dims = dims[0]
    elif node.target is not _aten.transpose.int:
        return False
    places = [dim % 2 for dim in dims]
    return places == [1, 0] or (node.target is _aten.transpose.int and places == [0, 1])
