"""The operators that torch traces: any format, named by its spec, and derivatives in few bits.

A spec is one string, so torch.compile guards on it as a whole: with numbers as arguments it would
make them symbolic as soon as a second model brings other ones. The fakes give every shape from the
spec alone, which is what makes fullgraph tracing and memory prediction possible.

They are defined by torch.library's lower interface: a call by torch.library.custom_op takes up to
ten times as long, twice in every layer of every step.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from actprune.formats import Compressed, parse
from actprune_kernels import gelu
from actprune_kernels.sizes import wide

_of = lru_cache(maxsize=256)(parse)

_library: Any = torch.library.Library("actprune", "DEF")  # type: ignore[no-untyped-call]

_Fake = TypeVar("_Fake", bound=Callable[..., Any])


def operator(function: Callable[..., Any], mutates: Sequence[str] = ()) -> Any:
    """The operator actprune::NAME of a function, on every device; its fake is to be registered.

    It has no gradient, of which torch warns where one is asked for: autograd sees the layers.
    """

    def kernel(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():  # as in the layers
            return function(*arguments)
        with torch.no_grad():
            return function(*arguments)

    name = function.__name__
    schema = torch.library.infer_schema(function, mutates_args=mutates)
    _library.define(name + schema, tags=[torch.Tag.pt2_compliant_tag])
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    return getattr(torch.ops.actprune, name).default


def fake(of: Any) -> Callable[[_Fake], _Fake]:
    """Register the decorated function as what gives the shapes of an operator's results."""
    register: Callable[[_Fake], _Fake] = torch.library.register_fake(of, lib=_library)
    return register


def _compressed(
    buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype
) -> Compressed:
    return Compressed(_of(spec), (rows, features), dtype, tuple(buffers))


@operator
def compress(
    activation: Tensor, spec: str, draw: Tensor | None, sample_importance: Tensor | None = None
) -> list[Tensor]:
    """The tensors that `spec` keeps of activation (rows, features); sample_importance (rows,)."""
    if not activation.numel():  # of nothing, pointers alone are kept
        return [part.zero_() for part in _of(spec).empty_tensors(activation, *activation.shape)]
    return list(_of(spec).compress_tensors(activation, draw, sample_importance))


@fake(compress)
def _(
    activation: Tensor, spec: str, draw: Tensor | None, sample_importance: Tensor | None = None
) -> list[Tensor]:
    return list(_of(spec).empty_tensors(activation, *activation.shape))


@operator
def grad_weight(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    """dYᵀ·X, (out_features, features), from dY (rows, out_features)."""
    kept = _compressed(buffers, spec, len(grad_output), features, grad_output.dtype)
    return kept.format.grad_weight(kept, grad_output)


@fake(grad_weight)
def _(buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int) -> Tensor:
    return grad_output.new_empty(grad_output.shape[1], features)


def _grad_weights(
    info: Any, dims: Any, buffers: Sequence[Tensor], grad_output: Tensor, spec: str, features: int
) -> tuple[Tensor, int]:
    """One product for a batch of dY, of one X."""
    rows = grad_output.movedim(dims[1], 1)  # rows, batch, out_features
    found = grad_weight(buffers, rows.flatten(1), spec, features)
    return found.view(*rows.shape[1:], features), 0


torch.library.register_vmap("actprune::grad_weight", _grad_weights, lib=_library)


@operator
def to_dense(
    buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype
) -> Tensor:
    """X (rows, features) with zeros where it was pruned."""
    kept = _compressed(buffers, spec, rows, features, dtype)
    return kept.format.to_dense(kept)


@fake(to_dense)
def _(buffers: Sequence[Tensor], spec: str, rows: int, features: int, dtype: torch.dtype) -> Tensor:
    return buffers[0].new_empty(rows, features, dtype=dtype)


@operator
def row_dot(buffers: Sequence[Tensor], other: Tensor, spec: str) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
    rows, features = other.shape
    kept = _compressed(buffers, spec, rows, features, other.dtype)
    return kept.format.row_dot(kept, other)


@fake(row_dot)
def _(buffers: Sequence[Tensor], other: Tensor, spec: str) -> Tensor:
    return other.new_empty(other.shape[0], dtype=wide(other.dtype))


@partial(operator, mutates=["h"])
def gelu_(h: Tensor, bits: int) -> Tensor:
    """h, contiguous, becomes GELU(h); the codes of its derivative (actprune_kernels.gelu)."""
    return gelu.backend(h.device).forward_(h, bits)  # type: ignore[no-any-return]


@fake(gelu_)
def _(h: Tensor, bits: int) -> Tensor:
    return h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)


@operator
def derivative_codes(h: Tensor, bits: int, name: str) -> Tensor:
    """The codes of the derivative of GELU or SiLU, by `name`, at h, contiguous."""
    return gelu.backend(h.device).derivative_codes(h, bits, name)  # type: ignore[no-any-return]


@fake(derivative_codes)
def _(h: Tensor, bits: int, name: str) -> Tensor:
    return h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)


@partial(operator, mutates=["grad"])
def gelu_backward_(grad: Tensor, codes: Tensor, bits: int, name: str = "gelu") -> None:
    """grad, contiguous, becomes grad times the derivative that the codes tell."""
    gelu.backend(grad.device).backward_(grad, codes, bits, name)
