"""What operators allocate while they run, and free before they end."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from actprune.graph.values import hint, nbytes

_aten: Any = torch.ops.aten
_BLOCK, _FLAT = 16, 4
"""Channels that oneDNN puts side by side, and up to how many of an input it leaves as they are."""
_FEW = 16
"""Images below which one thread multiplies by the other library, where a kernel has one place."""
_ORDERED = (torch.float32, torch.bfloat16)
"""Types that oneDNN convolves on a CPU."""


def scratch(node: fx.Node) -> int:
    """Return the bytes that an operator has beside its arguments and results, at most.

    Known is what oneDNN takes to bring a convolution's tensors into its order of memory, and what
    norms copy (docs/measuring.md): that of all others counts as nothing.
    """
    args: Any = node.args
    if node.target is _aten.convolution.default:
        x, weight, _, stride, padding, _, transposed, _, groups = args
        parts = _fake(x), _fake(weight), _fake(node)
        if not _by_onednn(*parts[:2], stride, padding, groups):
            return nbytes(parts[2]) if transposed else 0
        if _lasts(*parts[:2]):
            return 2 * nbytes(parts[1])
        x, weight, y = parts
        return _of_input(y, x, weight, stride) if transposed else _of_result(*parts)
    if node.target is _aten.convolution_backward.default:
        grad, x, weight, _, stride, padding, _, transposed, _, groups, wanted = args
        parts = _fake(x), _fake(weight), _fake(grad)
        if transposed or not _by_onednn(*parts[:2], stride, padding, groups):
            return 0
        if _lasts(*parts[:2]):
            return 3 * nbytes(parts[1])
        x, weight, y = parts
        of_weight = max(_blocked(x) + _blocked(y), nbytes(weight))
        of_input = _of_input(x, y, weight, stride) - nbytes(weight)
        return max(of_weight if wanted[1] else 0, of_input if wanted[0] else 0)
    if node.target is _aten.native_batch_norm_backward.default:
        return nbytes(_fake(args[1])) if args[-1][0] else 0
    if node.target is _aten.native_layer_norm.default:
        return _copied(args[0])
    if node.target is _aten.native_layer_norm_backward.default:
        return _copied(args[0]) + _copied(args[1])
    return 0


def _copied(node: fx.Node) -> int:
    """What is brought into the order of its sizes."""
    tensor = _fake(node)
    return 0 if tensor.is_contiguous() else nbytes(tensor)


def _of_result(x: Tensor, weight: Tensor, y: Tensor) -> int:
    """First there are both in blocks, then the result in both orders."""
    blocked = _blocked(y)
    return max(_blocked(x) + blocked - nbytes(y), blocked) + nbytes(weight)


def _of_input(x: Tensor, y: Tensor, weight: Tensor, stride: Any) -> int:
    """The same of an input's gradient; with a stride there is another copy of it."""
    found = _of_result(y, weight, x)
    return max(found, 2 * nbytes(x)) if max(stride) > 1 else found


def _by_onednn(x: Tensor, weight: Tensor, stride: Any, padding: Any, groups: int) -> bool:
    """Whether oneDNN convolves these."""
    sizes = [hint(n) for n in weight.shape[2:]]
    pointwise = groups == 1 and max((*sizes, *stride)) == 1 and not any(padding)
    plain = pointwise and hint(x.shape[0]) < _FEW and torch.get_num_threads() == 1
    return x.device.type == "cpu" and x.dtype in _ORDERED and not plain


def _lasts(x: Tensor, weight: Tensor) -> bool:
    """Whether the images stay as they lie, and the weight alone is brought into blocks."""
    return any(_channels_last(part) for part in (x, weight))


def _channels_last(tensor: Tensor) -> bool:
    order = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if order is None or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=order)


def _blocked(tensor: Tensor) -> int:
    """Bytes where channels are in blocks, the last one filled up."""
    channels = hint(tensor.shape[1])
    if channels <= _FLAT:
        return 0
    return nbytes(tensor) // channels * math.ceil(channels / _BLOCK) * _BLOCK


def _fake(part: Any) -> Tensor:
    found: Tensor = part.meta["val"]
    return found
