"""The operators that torch traces: any format, named by its spec, and GELU in few bits.

A spec is one string, so torch.compile guards on it as a whole: with numbers as arguments it would
make them symbolic as soon as a second model brings other ones. The fakes give every shape from the
spec alone, which is what makes fullgraph tracing and memory prediction possible.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from actprune.formats import Compressed, parse
from actprune_common.errors import InputError
from actprune_kernels import gelu
from actprune_kernels.sizes import wide

_of = lru_cache(maxsize=256)(parse)


def _compressed(
    buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype
) -> Compressed:
    return Compressed(_of(spec), (rows, features), dtype, tuple(buffers))


@torch.library.custom_op("actprune::compress", mutates_args=())
def compress(
    activation: Tensor, spec: str, draw: Tensor | None, sample_importance: Tensor | None = None
) -> list[Tensor]:
    """The tensors that `spec` keeps of activation (rows, features); sample_importance (rows,)."""
    if not activation.numel():  # of nothing, pointers alone are kept
        return [part.zero_() for part in _of(spec).empty_tensors(activation, *activation.shape)]
    return list(_of(spec).compress_tensors(activation, draw, sample_importance))


@compress.register_fake
def _(
    activation: Tensor, spec: str, draw: Tensor | None, sample_importance: Tensor | None = None
) -> list[Tensor]:
    return list(_of(spec).empty_tensors(activation, *activation.shape))


@torch.library.custom_op("actprune::grad_weight", mutates_args=())
def grad_weight(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    """dYᵀ·X, (out_features, features), from dY (rows, out_features)."""
    kept = _compressed(buffers, spec, len(grad_output), features, grad_output.dtype)
    return kept.format.grad_weight(kept, grad_output)


@grad_weight.register_fake
def _(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    return grad_output.new_empty(grad_output.shape[1], features)


@grad_weight.register_vmap
def _(
    info: Any, dims: Any, buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int
) -> tuple[Tensor, int]:
    """One product for a batch of dY, of one X."""
    rows = grad_output.movedim(dims[1], 1)  # rows, batch, out_features
    found = grad_weight(buffers, rows.flatten(1), spec, features)
    return found.view(*rows.shape[1:], features), 0


def _not_again(ctx: Any, grad: Tensor) -> None:
    raise InputError(
        "gradient: that of a pruned layer's weight was differentiated again, for which its whole "
        "input would be needed: leave the layer out (convert(..., exclude=...)), or differentiate "
        "gradients of inputs alone"
    )


grad_weight.register_autograd(_not_again)


@torch.library.custom_op("actprune::to_dense", mutates_args=())
def to_dense(
    buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype
) -> Tensor:
    """X (rows, features) with zeros where it was pruned."""
    kept = _compressed(buffers, spec, rows, features, dtype)
    return kept.format.to_dense(kept)


@to_dense.register_fake
def _(buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype) -> Tensor:
    return buffers[0].new_empty(rows, features, dtype=dtype)


@torch.library.custom_op("actprune::row_dot", mutates_args=())
def row_dot(buffers: Sequence[Tensor], other: Tensor, spec: str) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
    rows, features = other.shape
    kept = _compressed(buffers, spec, rows, features, other.dtype)
    return kept.format.row_dot(kept, other)


@row_dot.register_fake
def _(buffers: Sequence[Tensor], other: Tensor, spec: str) -> Tensor:
    return other.new_empty(other.shape[0], dtype=wide(other.dtype))


@torch.library.custom_op("actprune::gelu_", mutates_args=("h",))
def gelu_(h: Tensor, bits: int) -> Tensor:
    """h, contiguous, becomes GELU(h); the codes of its derivative (actprune_kernels.gelu)."""
    return gelu.backend(h.device).forward_(h, bits)  # type: ignore[no-any-return]


@gelu_.register_fake
def _(h: Tensor, bits: int) -> Tensor:
    return h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)


@torch.library.custom_op("actprune::gelu_backward_", mutates_args=("grad",))
def gelu_backward_(grad: Tensor, codes: Tensor, bits: int) -> None:
    """grad, contiguous, becomes grad times the derivative that the codes tell."""
    gelu.backend(grad.device).backward_(grad, codes, bits)
