"""What a function of torch is to the tensors around it, by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch.nn.functional as F

from actprune_kernels.gelu import NAMES as _DERIVATIVES

KINDS = LINEAR, CONV, NORM, ACTIVATION, ATTENTION, REST = (
    *("linear", "conv", "norm", "activation", "attention", "rest"),
)
"""What a tensor is saved for, as rules name it. A product of two activations is attention's."""
PRODUCTS = (LINEAR, CONV)
"""The kinds whose gradients are linear in what they save."""
_NAMES = {
    LINEAR: "linear matmul rmatmul mm addmm bmm baddbmm addbmm einsum bilinear grouped_mm mv addmv",
    CONV: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    NORM: "layer_norm rms_norm group_norm batch_norm instance_norm local_response_norm normalize",
    ACTIVATION: (
        "relu relu6 gelu silu mish elu celu selu leaky_relu hardtanh hardswish hardsigmoid "
        "softplus tanh sigmoid logsigmoid prelu rrelu threshold glu"
    ),
    ATTENTION: "scaled_dot_product_attention softmax multi_head_attention_forward",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
PRODUCT_PASSES = 1000
_PASSES = {
    0: "reshape flatten",
    1: (
        "add radd iadd sub rsub isub mul rmul imul div truediv rtruediv itruediv neg square abs "
        "reciprocal clamp clamp_min maximum minimum where masked_fill to float half bfloat16 "
        "type_as contiguous clone cat concat stack pad roll getitem relu hardtanh relu6 leaky_relu "
        "threshold index_select repeat_interleave flip"
    ),
    2: "rsqrt sqrt sigmoid hardswish hardsigmoid normalized",
    3: "silu exp elu mean sum",
    4: "gelu tanh softplus mish layer_norm rms_norm group_norm pow",
    5: "softmax avg_pool2d max_pool2d adaptive_avg_pool2d",
    PRODUCT_PASSES: (
        "linear matmul mm addmm bmm baddbmm conv1d conv2d conv3d scaled_dot_product_attention "
        "einsum"
    ),
}
_COSTS = {name: passes for passes, names in _PASSES.items() for name in names.split()}
_FREE = (
    "get size stride dim numel detach is_floating_point is_contiguous data_ptr len "
    "view view_as transpose permute t movedim moveaxis swapaxes swapdims unflatten squeeze "
    "unsqueeze expand expand_as unbind split chunk tensor_split split_with_sizes narrow select "
    "diagonal"
)
_PERHAPS_VIEWS = "reshape flatten contiguous to float half bfloat16 type_as getitem"
_FLAGS = {"batch_norm": (5, "training"), "scaled_dot_product_attention": (4, "dropout_p")}
_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "setitem")


@dataclass(frozen=True)
class Operator:
    """What a function does, whatever it is given."""

    name: str
    kind: str
    passes: int | None
    """Of running it again, in copies of its result; None: it is random, or not known."""
    in_place: bool
    """It writes into its first argument."""
    free: bool
    """It computes nothing that could be saved: it asks, or its results are views."""
    perhaps_view: bool
    """Its result is a view of its first argument, or new."""
    flag: tuple[int, str] | None
    """The argument, by position or name, with which it would not give the same once more."""
    ours: bool
    """An operator of this package: what it returns is a store already."""
    derivative: bool = False
    """There are codes of its derivative."""


@lru_cache(maxsize=4096)
def operator(func: Callable[..., Any]) -> Operator:
    """Return what is known of a function, of which a method is one."""
    name = getattr(func, "__name__", type(func).__name__)
    ours = "actprune" in str(getattr(func, "_qualified_op_name", getattr(func, "_name", "")))
    special = name.startswith("__") and name.endswith("__")
    in_place = name.endswith("_") and not special
    name = name.strip("_")
    in_place = in_place or (special and name in _IN_PLACE)
    free = name in _FREE.split() and not in_place
    passes = 2 if func is F.batch_norm else _COSTS.get(name)
    kind, perhaps_view, flag = (
        _KINDS.get(name, REST),
        name in _PERHAPS_VIEWS.split(),
        _FLAGS.get(name),
    )
    derivative = name in _DERIVATIVES
    return Operator(name, kind, passes, in_place, free, perhaps_view, flag, ours, derivative)


def repeats(found: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call gives the same once more, and changes nothing but its result."""
    if found.flag is None:
        return True
    at, name = found.flag
    return not kwargs.get(name, args[at] if len(args) > at else False)
