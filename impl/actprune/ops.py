"""The three operators that torch traces: any format, named by its spec.

A spec is one string, so torch.compile guards on it as a whole: with numbers as arguments it would
make them symbolic as soon as a second model brings other ones. The fakes give every shape from the
spec alone, which is what makes fullgraph tracing and memory prediction possible.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from actprune.formats import parse

_of = lru_cache(maxsize=256)(parse)


@torch.library.custom_op("actprune::compress", mutates_args=())
def compress(activation: Tensor, spec: str, draw: Tensor | None) -> list[Tensor]:
    """The buffers that `spec` keeps of activation (rows, features)."""
    return list(_of(spec).store(activation, draw))


@compress.register_fake
def _(activation: Tensor, spec: str, draw: Tensor | None) -> list[Tensor]:
    return list(_of(spec).empty(activation))


@torch.library.custom_op("actprune::grad_weight", mutates_args=())
def grad_weight(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    """dYᵀ·X, (out_features, features), from dY (rows, out_features)."""
    return _of(spec).product(tuple(buffers), grad_output, features)


@grad_weight.register_fake
def _(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    return grad_output.new_empty(grad_output.shape[1], features)


@torch.library.custom_op("actprune::to_dense", mutates_args=())
def to_dense(buffers: Sequence[Tensor], spec: str, rows: int, features: int) -> Tensor:
    """X (rows, features) with zeros where it was pruned."""
    return _of(spec).expand(tuple(buffers), rows, features)


@to_dense.register_fake
def _(buffers: Sequence[Tensor], spec: str, rows: int, features: int) -> Tensor:
    return buffers[0].new_empty(rows, features)
