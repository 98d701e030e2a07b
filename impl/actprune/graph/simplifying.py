"""Copies that a graph does without."""

from typing import Any

import torch
from torch import Tensor

from actprune.graph.values import Joint

_clone: Any = torch.ops.aten.clone.default


def without_copies(joint: Joint) -> None:
    """Let what reads a copy of a tensor read the tensor, where nobody writes to either.

    Dropout that drops nothing leaves such copies. What the graph returns stays a tensor of its own.
    """
    returned = {
        joint.values[node] for node in (*joint.outputs, *joint.gradients) if node in joint.values
    }
    for node in list(joint.graph.nodes):
        if node.target is not _clone or node not in joint.values:
            continue
        given, value = node.args[0], joint.values[node]
        if given not in joint.values or value in returned or joint.values[given] in returned:
            continue
        made, whole = node.meta["val"], given.meta["val"]
        if isinstance(made, Tensor) and made.stride() == whole.stride():
            node.replace_all_uses_with(given)
            joint.graph.erase_node(node)
