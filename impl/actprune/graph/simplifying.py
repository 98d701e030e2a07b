"""A joint graph with less to keep: copies nobody needs, masks for ReLU's results, bare shapes."""

from typing import Any

import torch
from torch import Tensor, fx

from actprune.graph.values import Joint, result_of

_aten: Any = torch.ops.aten
_CONVOLVED = _aten.convolution_backward.default
ADDED = "actprune_added"
"""In the meta of a node that stands here for others, and may not where sizes are not fixed."""


def simplify(graph: fx.Graph, outputs: int) -> Joint:
    """Return the joint graph, which is changed in place and computes what it did."""
    joint = Joint(graph, outputs)
    without_copies(joint)
    with_masks(Joint(graph, outputs))
    without_contents(Joint(graph, outputs))
    weights_apart(graph)
    return Joint(graph, outputs)


def without_copies(joint: Joint) -> None:
    """Let what reads a copy of a tensor read the tensor, where nobody writes to either.

    Dropout that drops nothing leaves such copies. What the graph returns stays a tensor of its own.
    """
    returned = {
        joint.values[node] for node in (*joint.outputs, *joint.gradients) if node in joint.values
    }
    for node in list(joint.graph.nodes):
        if node.target is not _aten.clone.default or node not in joint.values:
            continue
        given, value = node.args[0], joint.values[node]
        if given not in joint.values or value in returned or joint.values[given] in returned:
            continue
        made, whole = node.meta["val"], given.meta["val"]
        same = isinstance(made, Tensor) and made.stride() == whole.stride()
        if same and made.storage_offset() == whole.storage_offset():  # as_strided reads offsets
            node.replace_all_uses_with(given)
            joint.graph.erase_node(node)


def with_masks(joint: Joint) -> None:
    """Let the backward pass of ReLU and hardtanh read where they let through alone.

    As in eager mode, threshold lets a gradient through where its input is NaN; hardtanh does not.
    """
    for node in list(joint.backward):
        if node.target is _aten.threshold_backward.default:
            grad, result, least = node.args
            if result not in joint.values:
                continue
            mask = _before(node, _aten.le.Scalar, (result, least))
            made = _before(node, _aten.masked_fill.Scalar, (grad, mask, 0))
        elif node.target is _aten.hardtanh_backward.default:
            grad, result, least, most = node.args
            if result not in joint.values:
                continue
            below = _before(node, _aten.le.Scalar, (result, least))
            above = _before(node, _aten.ge.Scalar, (result, most))
            mask = _before(node, _aten.logical_or.default, (below, above))
            made = _before(node, _aten.masked_fill.Scalar, (grad, mask, 0))
        else:
            continue
        made.meta.update({k: v for k, v in node.meta.items() if k != "val"})
        node.replace_all_uses_with(made)
        joint.graph.erase_node(node)


def without_contents(joint: Joint) -> None:
    """Let the backward pass of max-pooling read the shape of its input alone, which it needs."""
    for node in list(joint.backward):
        if node.target is not _aten.max_pool2d_with_indices_backward.default:
            continue
        x: Any = node.args[1]
        tensor = x.meta["val"]
        fixed = all(isinstance(size, int) for size in tensor.shape)
        if x in joint.values and fixed and tensor.is_contiguous():
            scalar = _before(node, _aten.new_zeros.default, (node.args[0], []))
            shape = _before(node, _aten.expand.default, (scalar, list(tensor.shape)))
            node.args = (node.args[0], shape, *node.args[2:])


def weights_apart(graph: fx.Graph) -> None:
    """Let a convolution's two gradients be computed one after the other, as its code does anyway.

    That of its input is the transposed convolution, which does not read the input.
    """
    for node in list(graph.find_nodes(op="call_function", target=_CONVOLVED)):
        grad, x, weight, _, stride, padding, dilation, transposed, _, groups, wanted = node.args
        sizes = [_fixed(part) for part in (grad, x, weight)]
        if transposed or not (wanted[0] and wanted[1]) or not all(sizes):
            continue
        lengths = zip(*(each[2:] for each in sizes), stride, padding, dilation, strict=True)
        rest = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for m, n, k, s, p, d in lengths]
        given = weight, None, stride, padding, dilation, True, rest, groups
        made = _before(node, _aten.convolution.default, (grad, *given))
        of_weight = _before(node, _CONVOLVED, (*node.args[:-1], [False, *wanted[1:]]))
        for each in (made, of_weight):
            each.meta.update({k: v for k, v in node.meta.items() if k != "val"})
        del of_weight.meta[ADDED]
        for user in list(node.users):
            if user.args[1] == 0:
                user.replace_all_uses_with(made)
                graph.erase_node(user)
            else:
                user.args = (of_weight, user.args[1])
        graph.erase_node(node)


def _fixed(node: fx.Node) -> list[int]:
    """The sizes of a tensor, none where they are not fixed."""
    sizes = list(node.meta["val"].shape)
    return sizes if all(isinstance(size, int) for size in sizes) else []


def _before(node: fx.Node, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
    with node.graph.inserting_before(node):
        made: fx.Node = node.graph.call_function(function, args, kwargs or {})
    made.meta[ADDED] = True
    made.meta["val"] = result_of(function, args, kwargs or {})
    return made
