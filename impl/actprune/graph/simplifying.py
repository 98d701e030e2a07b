"""A joint graph with less to keep: copies nobody needs, masks for ReLU's results, bare shapes."""

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx

from actprune.graph.values import Joint, hint, result_of

_aten: Any = torch.ops.aten
_CONVOLVED = _aten.convolution_backward.default
_NORMED = _aten.native_batch_norm_backward.default
_LAST = torch.channels_last
ADDED = "actprune_added"
"""In the meta of a node that replaces others, perhaps only where sizes are fixed: what `key_of`
reads in place of its operator, so that keys are the same. One node names what it replaces, another
has an empty text, and is passed over."""


def simplify(graph: fx.Graph, outputs: int) -> Joint:
    """Return the joint graph, which is changed in place and computes what it did."""
    joint = Joint(graph, outputs)
    without_copies(joint)
    with_masks(Joint(graph, outputs))
    without_contents(Joint(graph, outputs))
    weights_apart(graph)
    norms_apart(graph)
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
            made = _masked(node, grad, mask)
        elif node.target is _aten.hardtanh_backward.default:
            grad, result, least, most = node.args
            if result not in joint.values:
                continue
            below = _before(node, _aten.le.Scalar, (result, least))
            above = _before(node, _aten.ge.Scalar, (result, most))
            mask = _before(node, _aten.logical_or.default, (below, above))
            made = _masked(node, grad, mask)
        else:
            continue
        node.replace_all_uses_with(made)
        joint.graph.erase_node(node)


def _masked(node: fx.Node, grad: Any, mask: fx.Node) -> fx.Node:
    """0 where a mask says so, else a gradient, which lies as what `node` gives.

    masked_fill, which can be written over the gradient, gives what lies in the order of its sizes.
    """
    wanted: Tensor = node.meta["val"]
    dims = sorted(range(wanted.dim()), key=lambda dim: -hint(wanted.stride(dim)))
    turned = wanted.permute(dims)
    if not turned.is_contiguous():
        return _before(node, _aten.where.ScalarSelf, (mask, 0, grad))
    if dims == sorted(dims):
        return _before(node, _aten.masked_fill.Scalar, (grad, mask, 0))
    parts = (_before(node, _aten.permute.default, (part, dims)) for part in (grad, mask))
    made = _before(node, _aten.masked_fill.Scalar, (*parts, 0))
    back = sorted(range(len(dims)), key=dims.__getitem__)
    return _before(node, _aten.permute.default, (made, back))


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
    """Let a convolution's gradients be computed one after the other, as its code does anyway.

    That of its input does not read the input.
    """
    for node in list(graph.find_nodes(op="call_function", target=_CONVOLVED)):
        args: Any = node.args
        fixed = all(_fixed(part) for part in args[:3])
        users = {user.args[1]: user for user in node.users}
        if not (fixed and args[-1][0] and args[-1][1]) or args[7]:
            continue
        made = [_of_input(node), *_of_weight(node)]
        for place, user in users.items():
            user.replace_all_uses_with(made[place])
            graph.erase_node(user)
        graph.erase_node(node)


def _is_product(node: fx.Node, *images: Any) -> bool:
    """Whether a 1x1 convolution is products of what these images hold as they lie.

    Channels by channels it is one for each image, which pays where places outnumber channels.
    """
    args: Any = node.args
    grad, _, weight, _, stride, padding, _, _, _, groups, _ = args
    kernel, places = _fixed(weight), math.prod(_fixed(grad)[2:])
    pointwise = groups == 1 and max(*stride, *kernel[2:]) == 1 and not any(padding)
    orders = {_order(image) for image in images}
    many = places >= max(kernel[:2]) or _LAST in orders
    return pointwise and many and len(orders) == 1 and None not in orders


def _order(image: Tensor) -> torch.memory_format | None:
    """How an image lies: channel by channel, or place by place; None where in another way."""
    if image.is_contiguous():
        return torch.contiguous_format
    last = image.dim() == 4 and image.is_contiguous(memory_format=_LAST)
    return _LAST if last else None


def _of_input(node: fx.Node) -> fx.Node:
    """A product, or the transposed convolution."""
    args: Any = node.args
    grad, x, weight, _, stride, padding, dilation, _, _, groups, _ = args
    sizes, outer, kernel = _fixed(x), _fixed(grad)[2:], _fixed(weight)
    wanted: Tensor = node.meta["val"][0]
    if _is_product(node, grad.meta["val"], wanted):
        matrix = _before(node, _aten.view.default, (weight, kernel[:2]))
        if _order(wanted) is _LAST:
            made = _before(node, _aten.mm.default, (_rows(node, grad), matrix))
            made = _before(node, _aten.view.default, (made, [sizes[0], *sizes[2:], sizes[1]]))
            return _before(node, _aten.permute.default, (made, [0, 3, 1, 2]))
        turned = _before(node, _aten.permute.default, (matrix, [1, 0]))
        each = _before(node, _aten.expand.default, (turned, [sizes[0], *kernel[1::-1]]))
        made = _before(node, _aten.bmm.default, (each, _planes(node, grad)))
        return _before(node, _aten.view.default, (made, sizes))
    settings = (list(part) * (len(outer) // len(part)) for part in (stride, padding, dilation))
    lengths = zip(sizes[2:], outer, kernel[2:], *settings, strict=True)
    rest = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in lengths]
    given = grad, weight, None, stride, padding, dilation, True, rest, groups
    made = _before(node, _aten.convolution.default, given)
    if made.meta["val"].stride() == wanted.stride():
        return made
    order = {"memory_format": _order(wanted) or torch.contiguous_format}
    return _before(node, _aten.clone.default, (made,), order)


def _of_weight(node: fx.Node) -> list[fx.Node]:
    """Products, and the bias's sum; or the operator by itself."""
    args: Any = node.args
    grad, x, weight = args[:3]
    tensors = grad.meta["val"], x.meta["val"]
    if not _is_product(node, *tensors):
        made = _before(node, _CONVOLVED, (*args[:-1], [False, *args[-1][1:]]))
        made.meta[ADDED] = str(node.target)
        return [_before(node, operator.getitem, (made, place)) for place in (1, 2)]
    if _order(tensors[0]) is _LAST:
        turned = _before(node, _aten.permute.default, (_rows(node, grad), [1, 0]))
        each = made = _before(node, _aten.mm.default, (turned, _rows(node, x)))
    else:
        turned = _before(node, _aten.permute.default, (_planes(node, x), [0, 2, 1]))
        each = _before(node, _aten.bmm.default, (_planes(node, grad), turned))
        made = _before(node, _aten.sum.dim_IntList, (each, [0]))
    each.meta[ADDED] = str(node.target)
    dims = [0, *range(2, len(_fixed(grad)))]
    return [
        _before(node, _aten.view.default, (made, _fixed(weight))),
        _before(node, _aten.sum.dim_IntList, (grad, dims)),
    ]


def _planes(node: fx.Node, images: Any) -> fx.Node:
    """Images channel by channel, whose places are in one dimension."""
    sizes = _fixed(images)
    return _before(node, _aten.view.default, (images, [*sizes[:2], math.prod(sizes[2:])]))


def _rows(node: fx.Node, images: Any) -> fx.Node:
    """The places of all images, each a row of channels."""
    turned = _before(node, _aten.permute.default, (images, [0, 2, 3, 1]))
    count, channels, *rest = _fixed(images)
    return _before(node, _aten.view.default, (turned, [count * math.prod(rest), channels]))


def norms_apart(graph: fx.Graph) -> None:
    """Let a batch norm's gradient be written over the one that it is given.

    Of N numbers x with the mean m and the inverse deviation i it is s·(g - Σg/N - i²(x - m)·Σg(x -
    m)/N), where s = i·weight: a factor, a multiple of x, and a constant, by channel.
    """
    for node in list(graph.find_nodes(op="call_function", target=_NORMED)):
        args: Any = node.args
        grad, x, weight, _, _, mean, invstd, train, _, wanted = args
        sizes = _fixed(x)
        users = {user.args[1]: user for user in node.users}
        if not (sizes and train and all(wanted) and weight is not None and 0 in users):
            continue
        given, result = grad.meta["val"], users[0].meta["val"]
        if {given.dtype, weight.meta["val"].dtype, x.meta["val"].dtype} != {result.dtype}:
            continue  # under autocast
        if given.stride() != result.stride():
            continue

        def call(function: Any, *given: Any, before: fx.Node = users[0]) -> fx.Node:
            made = _before(before, function, given)
            # a factor follows from no tangent, but nobody needs it in the forward pass
            made.meta["partitioner_tag"] = "must_be_in_backward"
            return made

        shape, count = [1, -1] + [1] * (len(sizes) - 2), math.prod(sizes) // sizes[1]
        sums = _before(node, _NORMED, (*args[:-1], [False, True, True]))
        sums.meta[ADDED] = str(node.target)
        sums.meta["val"] = (None, *sums.meta["val"][1:])  # not asked for
        of_weight, of_bias = (_before(node, operator.getitem, (sums, place)) for place in (1, 2))
        scale = call(_aten.mul.Tensor, weight, invstd)
        slope = call(_aten.mul.Tensor, call(_aten.mul.Tensor, scale, invstd), of_weight)
        slope = call(_aten.div.Scalar, slope, -count)
        constant = call(_aten.div.Scalar, call(_aten.mul.Tensor, scale, of_bias), -count)
        constant = call(_aten.sub.Tensor, constant, call(_aten.mul.Tensor, slope, mean))
        scale, slope, constant = (
            call(_aten.view.default, part, shape) for part in (scale, slope, constant)
        )
        made = call(_aten.mul.Tensor, grad, scale)
        made = call(_aten.addcmul.default, made, x, slope)
        made = call(_aten.add.Tensor, made, constant)
        for place, part in ((0, made), (1, of_weight), (2, of_bias)):
            if place in users:
                users[place].replace_all_uses_with(part)
                graph.erase_node(users[place])
        graph.erase_node(node)


def _fixed(node: Any) -> list[int]:
    """The sizes of a tensor, none where they are not fixed."""
    sizes = list(node.meta["val"].shape)
    return sizes if all(isinstance(size, int) for size in sizes) else []


def _before(node: fx.Node, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
    with node.graph.inserting_before(node):
        made: fx.Node = node.graph.call_function(function, args, kwargs or {})
    made.meta.update(node.meta, **{ADDED: "", "val": result_of(function, args, kwargs or {})})
    return made
