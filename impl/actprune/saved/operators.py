"""What an operator is to the tensors around it: its kind, and whether it can be run again."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

KINDS = ("linear", "conv", "norm", "activation", "attention", "rest")
"""What may consume a saved tensor, as rules name it."""

_OF = {
    "linear": "mm addmm bmm baddbmm _grouped_mm _scaled_mm addmv mv dot linear _trilinear",
    "conv": "convolution _convolution cudnn_convolution mkldnn_convolution miopen_convolution",
    "norm": (
        "native_layer_norm native_batch_norm native_group_norm _fused_rms_norm cudnn_batch_norm "
        "_native_batch_norm_legit miopen_batch_norm _batch_norm_with_update"
    ),
    "activation": (
        "gelu silu relu relu_ threshold leaky_relu elu celu selu hardswish hardsigmoid hardtanh "
        "mish softplus tanh sigmoid log_sigmoid_forward glu prelu silu_ hardswish_ hardtanh_ "
        "leaky_relu_ elu_ sigmoid_ tanh_ mish_ gelu_ rrelu_with_noise"
    ),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_softmax _safe_softmax _flash_attention_forward _efficient_attention_forward"
    ),
}
_KIND_OF = {name: kind for kind, names in _OF.items() for name in names.split()}
_PRODUCTS = ("linear", "conv", "attention")
_CHEAP = {
    "native_layer_norm": 3,
    "native_group_norm": 3,
    "_fused_rms_norm": 3,
    "native_batch_norm": 3,
    "_softmax": 4,
    "cat": 1,
    "stack": 1,
    "clone": 1,
    "_to_copy": 1,
    "constant_pad_nd": 1,
    "roll": 1,
    "index": 1,
    "index_select": 1,
    "avg_pool2d": 3,
    "max_pool2d_with_indices": 4,
    "upsample_nearest2d": 1,
    "mean": 1,
    "sum": 1,
}
"""What costs about so many passes over its output, beside the pointwise operators."""
_SLOW = {"gelu": 3, "tanh": 3, "sigmoid": 2, "silu": 2, "exp": 2, "pow": 1, "erf": 3, "softplus": 3}
PRODUCT_COST = 1000


@dataclass(frozen=True)
class Operator:
    """One overload."""

    name: str
    kind: str
    view: bool
    """Its output is a view, or it has none: nothing is computed."""
    mutates: bool
    cost: int | None
    """Of running it again, in passes over its output; None: it can't be."""


@lru_cache(maxsize=None)
def operator(func: Any) -> Operator:
    """What is known of an overload."""
    schema = func._schema
    name = schema.name.partition("::")[2]
    aten = schema.name.startswith("aten::")
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
    aliases = any(r.alias_info is not None for r in schema.returns)
    view = (aliases and not writes) or not schema.returns
    kind = _KIND_OF.get(name, "rest") if aten else "rest"
    return Operator(name, kind, view or name == "_unsafe_view" or name == "detach", writes, _cost(func, name, kind, aten))


def _cost(func: Any, name: str, kind: str, aten: bool) -> int | None:
    plain = name.rstrip("_")
    if not aten or torch.Tag.nondeterministic_seeded in func.tags or plain in ("bernoulli", "dropout"):
        return None
    if plain in _CHEAP:
        return _CHEAP[plain]
    if torch.Tag.pointwise in func.tags:
        return _SLOW.get(plain, 1)
    if kind in _PRODUCTS:
        return PRODUCT_COST
    return None
