"""What operators and stores take, in seconds, by the sizes of their tensors."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from actprune.graph.values import hint, is_view, nbytes, tensors


@dataclass(frozen=True)
class Rates:
    """What a device does in a second; plans depend on the ratios alone."""

    multiplied: float
    """Additions and multiplications of large products."""
    moved: float
    """Bytes read and written by an elementwise operator."""
    coded: float
    """Bytes of a tensor that become codes."""
    decoded: float
    """Bytes of a tensor that codes become."""
    offloaded: float
    """Bytes that go to the host's memory, or come back."""
    called: float
    """Of one operator on nothing, in seconds."""


RATES = {
    # one core of an AMD EPYC, torch 2.13, tensors of some MB (docs/measuring.md)
    "cpu": Rates(8e10, 4e10, 9e9, 2e10, 1e9, 2e-5),
    # a published H100's: bf16 products, HBM3, PCIe 5; unmeasured
    "cuda": Rates(4e14, 2e12, 1e12, 1e12, 4e10, 5e-6),
}
_PASSES = {
    **dict.fromkeys(("gelu", "tanh", "erf", "pow", "softplus", "mish"), 3.0),
    **dict.fromkeys(("exp", "silu", "sigmoid", "elu", "rsqrt", "log"), 2.0),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "native_group_norm"), 1.5),
    **dict.fromkeys(("_softmax", "_log_softmax"), 2.5),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "index", "gather"), 3.0),
}
"""How many times what a copy takes; others as much as a copy."""


def rates(device: torch.device) -> Rates:
    """Return what is known of a device, of an unknown one what is known of CUDA."""
    return RATES.get(device.type, RATES["cuda"])


def products(node: fx.Node) -> int:
    """Return the additions and multiplications of a product, a convolution or attention; else 0."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    name = target._schema.name.partition("::")[2]
    count = _PRODUCTS.get(name)
    shapes = [[hint(n) for n in p.shape] for p in map(_fake, node.args) if p is not None]
    found = next(tensors(node), None)
    if count is None or not shapes or found is None:
        return 0
    return count(shapes, [hint(n) for n in found.shape])


def seconds(node: fx.Node) -> float:
    """Return what an operator takes; what only says where a tensor lies takes nothing."""
    made = list(tensors(node))
    if not made or is_view(node) or node.target is operator.getitem:
        return 0.0
    if "actprune.unpack" in str(node.target):
        found = rates(made[0].device)
        return found.called + sum(nbytes(part) for part in made) / found.decoded
    found, moved = rates(made[0].device), sum(nbytes(part) for part in made)
    moved += sum(nbytes(part) for given in node.all_input_nodes for part in tensors(given))
    name = getattr(getattr(node.target, "_schema", None), "name", "").partition("::")[2]
    elementwise = _PASSES.get(name, 1.0) * moved / found.moved
    return found.called + max(elementwise, 2 * products(node) / found.multiplied)


def _fake(part: Any) -> Tensor | None:
    found = part.meta.get("val") if isinstance(part, fx.Node) else None
    return found if isinstance(found, Tensor) else None


Shapes = list[list[int]]


def _matrix(shapes: Shapes, result: list[int]) -> int:
    """Of matrices, or batches of them: the last but one argument's features are summed over."""
    count = shapes[-2][-1]
    for size in result:
        count *= size
    return count


def _grouped(shapes: Shapes, result: list[int]) -> int:
    """Of rows, each with one of several matrices."""
    return shapes[0][-1] * math.prod(result)


def _convolved(shapes: Shapes, result: list[int]) -> int:
    weight, count = shapes[1], 1
    for size in (*weight[1:], *result):
        count *= size
    return count


def _attention(shapes: Shapes, result: list[int]) -> int:
    query, key, value = shapes[:3]
    count = query[-2] * key[-2] * (query[-1] + value[-1])
    for size in query[:-2]:
        count *= size
    return count


_PRODUCTS: dict[str, Callable[[Shapes, list[int]], int]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _matrix),
    **dict.fromkeys(("_grouped_mm", "grouped_mm_fallback"), _grouped),
    "convolution": _convolved,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
}
