"""GELU and SiLU that keep the codes of their derivative in place of their input."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from actprune.layers import ops
from actprune.layers.foreign import is_batched
from actprune.saved.operators import Operator
from actprune.saved.tensors import flat_of
from actprune_common.errors import InputError
from actprune_kernels.codes import in_memory
from actprune_kernels.gelu import naive


def input_of(given: Iterable[Any]) -> Tensor | None:
    """Return the tensor that an activation takes."""
    return next((part for part in given if isinstance(part, Tensor)), None)


def refusal(found: Operator, given: Iterable[Any]) -> str | None:
    """Return why codes do not tell the derivative of a function of what it is given, if so."""
    if not found.derivative:
        return f"no derivative of {found.name}"
    for part in given:
        if isinstance(part, str) and part != "none":
            return f"no derivative of {found.name} by {part}"
    return None


def error_of(codes: Tensor, h: Tensor, bits: int, name: str) -> float:
    """Return ‖d̂ - d‖ / ‖d‖ of the derivatives d of a function at h."""
    exact = naive.derivative(_flat(h).double(), name)
    levels = torch.ones_like(exact)
    ops.gelu_backward_(levels, codes, bits, name)
    return float((levels - exact).norm() / exact.norm().clamp(min=1e-300))


class WithDerivative(torch.autograd.Function):
    """A call of a function of h, whose result is the function's own; h may be written to."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, name: str, bits: int, function: Callable[[], Tensor]
    ) -> Tensor:
        flat = _flat(h)
        ctx.save_for_backward(ops.derivative_codes(flat, bits, name))
        ctx.name, ctx.bits, ctx.dtype, ctx.shape = name, bits, h.dtype, h.shape
        ctx.stride = h.stride() if _is_dense(h) else torch.empty(h.shape, device="meta").stride()
        out = function()
        if out is h:
            ctx.mark_dirty(h)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # what is made of codes does not depend on h, as it should
            raise InputError(
                f"gradient: that of {ctx.name}'s input was differentiated again, for which the "
                "input would be needed, of whose derivative a few bits are kept: leave the rule "
                "out, or put MODULE@activation=>dense before it"
            )
        (codes,) = ctx.saved_tensors
        batched = is_batched(grad)  # has no strides
        with torch.no_grad():
            made = codes.new_empty_strided(ctx.shape, ctx.stride, dtype=ctx.dtype)
            made = made.fill_(1) if batched else made.copy_(grad)
            ops.gelu_backward_(flat_of(made), codes, ctx.bits, ctx.name)
        if batched:
            return grad * made, None, None, None
        return made, None, None, None


def _is_dense(h: Tensor) -> bool:
    """Whether it fills its part of the storage, in any order of dimensions."""
    return bool(h.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(h))


def _flat(h: Tensor) -> Tensor:
    """The values (n,) in the order in which they lie, or that of a copy."""
    return in_memory(h if _is_dense(h) else h.contiguous())
