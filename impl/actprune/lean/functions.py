"""Chains of layers as one autograd function each, in which what a linear keeps serves the others.

Each keeps the compressed inputs of its linears and 2 or 4 bits of GELU; affine and LayerScale keep
nothing. What is kept and multiplied has the dtype of the linears' weights, all else that of the
chain's input. docs/math.md derives the gradients; the plain layers are the twins that they are
tested against.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from actprune.errors import InputError
from actprune.linear import PrunedLinear
from actprune.ops import compress, gelu_, gelu_backward_, row_dot
from actprune.ops import grad_weight as product


class Kept(NamedTuple):
    """How one linear's input is kept."""

    spec: str
    draw: Tensor | None
    weights: Tensor | None
    """(rows,), as actprune.weigh says."""


class Options(NamedTuple):
    """Of a chain."""

    gelu: int | None
    """Bits that are kept of GELU's derivative; None: its input is kept whole."""
    residual: bool
    """The chain's input is added to its output."""


class Across(torch.autograd.Function):
    """x + γ (W (α x + β) + b), W acting across the patches of x (batch, patches, dim).

    The matrix that is kept is x with its rows (batch, channel) and its patches as features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,
        beta: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        kept: Kept,
    ) -> Tensor:
        batch, patches, dim = x.shape
        a = torch.empty(batch, dim, patches, dtype=weight.dtype, device=x.device)
        a.copy_(x.transpose(1, 2))
        buffers = compress(a.view(-1, patches), *kept)
        a.mul_(alpha[:, None]).add_(beta[:, None])
        across = F.linear(a, weight, bias).to(x.dtype)
        del a
        ctx.spec = kept.spec
        ctx.save_for_backward(alpha, beta, weight, bias, gamma, *buffers)
        return torch.addcmul(x, across.transpose(1, 2), gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, weight, bias, gamma, *buffers = ctx.saved_tensors
        batch, patches, dim = grad_out.shape
        rows = torch.empty(batch, dim, patches, dtype=weight.dtype, device=grad_out.device)
        rows.copy_(grad_out.transpose(1, 2))
        v = rows @ weight  # batch, dim, patches: the gradient by α x + β, but for γ
        dots = row_dot(buffers, v.view(-1, patches), ctx.spec).view(batch, dim).sum(0)
        sums = v.sum((0, 2), dtype=dots.dtype)
        of_bias = (rows.sum(0, dtype=dots.dtype) @ bias.to(dots.dtype)).to(dots.dtype)
        grad_gamma = alpha * dots + beta * sums + of_bias
        rows.mul_(gamma[:, None])
        grad_bias = rows.sum((0, 1))
        shift = torch.einsum("bdp,d->p", rows, beta.to(rows.dtype))
        rows.mul_(alpha[:, None])
        grad_weight = product(buffers, rows.view(-1, patches), ctx.spec, patches)
        del rows, buffers
        grad_weight += shift[:, None]
        grad_x = torch.addcmul(grad_out, v.transpose(1, 2).to(grad_out.dtype), gamma * alpha)
        return grad_x, gamma * dots, gamma * sums, grad_weight, grad_bias, grad_gamma, None


class Chain(torch.autograd.Function):
    """(x +) γ (W₂ GELU(W₁ (α x + β) + b₁) + b₂) for x (..., features).

    α with β, b₁, b₂, γ and W₂ with its GELU may each be None and are then left out.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor | None,
        beta: Tensor | None,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor | None,
        bias2: Tensor | None,
        gamma: Tensor | None,
        kept: tuple[Kept, ...],
        options: Options,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        dtype = weight1.dtype
        buffers1 = compress(rows.to(dtype), *kept[0])
        h = rows if alpha is None or beta is None else torch.addcmul(beta, rows, alpha)
        u = F.linear(h.to(dtype), weight1, bias1)
        del h
        slope, buffers2 = None, []
        if weight2 is not None:
            slope = u if options.gelu is None else gelu_(u, options.gelu)
            u = F.gelu(u) if options.gelu is None else u
            buffers2 = compress(u, *kept[1])
            u = F.linear(u, weight2, bias2)
        ctx.specs, ctx.first, ctx.options = [k.spec for k in kept], len(buffers1), options
        bias = bias1 if weight2 is None else bias2
        saved = alpha, beta, weight1, weight2, bias, gamma, slope
        ctx.save_for_backward(*saved, *buffers1, *buffers2)
        ctx.dtype, out = x.dtype, u
        if gamma is not None:
            out = out.to(x.dtype).mul_(gamma)
        if options.residual:
            out = out.to(x.dtype).add_(rows)
        # no view, which fully_shard warns of where it is the output of its unit
        return torch.ops.aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]])  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, weight1, weight2, bias, gamma, slope, *buffers = ctx.saved_tensors
        buffers1, buffers2 = buffers[: ctx.first], buffers[ctx.first :]
        d_out = grad_out.reshape(-1, grad_out.shape[-1]).to(ctx.dtype)
        dtype, sums = weight1.dtype, d_out.sum(0)
        grad_weight2 = grad_bias2 = grad_gamma = None
        if weight2 is None:
            g = product(buffers1, d_out.to(dtype), ctx.specs[0], weight1.shape[1])
            if gamma is not None:
                s = g if alpha is None else g * alpha + sums[:, None] * beta
                grad_gamma = _of_scale(weight1, bias, s, sums)
            g, grad_bias1 = _scaled(g, gamma), _scaled(sums, gamma).to(dtype)
            dh = (d_out if gamma is None else d_out * gamma).to(dtype)
        else:
            s = product(buffers2, d_out.to(dtype), ctx.specs[1], weight2.shape[1])
            grad_gamma = None if gamma is None else _of_scale(weight2, bias, s, sums)
            grad_weight2, grad_bias2 = _scaled(s, gamma), _scaled(sums, gamma).to(dtype)
            dh = (d_out if gamma is None else d_out * gamma).to(dtype) @ weight2
            if ctx.options.gelu is None:
                dh = torch.ops.aten.gelu_backward(dh, slope)
            else:
                gelu_backward_(dh, slope, ctx.options.gelu)
            g = product(buffers1, dh, ctx.specs[0], weight1.shape[1])
            grad_bias1 = dh.sum(0)
        grad_alpha = grad_beta = None
        grad_weight1 = g
        if alpha is not None:
            grad_alpha = (weight1 * g).sum(0, dtype=d_out.dtype)
            grad_beta = (grad_bias1 @ weight1).to(d_out.dtype)
            grad_weight1 = (g * alpha + grad_bias1[:, None] * beta).to(dtype)
        grad_x = (dh @ weight1).to(d_out.dtype)
        if alpha is not None:
            grad_x.mul_(alpha)
        if ctx.options.residual:
            grad_x.add_(d_out)
        of_linears = grad_weight1, grad_bias1, grad_weight2, grad_bias2
        of_all = grad_alpha, grad_beta, *of_linears, grad_gamma
        given = ctx.needs_input_grad[1:8]  # False where there is no such parameter
        return (
            grad_x.view(*grad_out.shape[:-1], grad_x.shape[-1]),
            *(grad if needed else None for grad, needed in zip(of_all, given, strict=True)),
            None,
            None,
        )


def _of_scale(weight: Tensor, bias: Tensor | None, s: Tensor, sums: Tensor) -> Tensor:
    """γ's gradient from S = dOutᵀ·u, of γ ∘ (W u + b)."""
    of_weight = (weight * s).sum(1, dtype=sums.dtype)
    return of_weight if bias is None else of_weight + bias * sums


def _scaled(s: Tensor, gamma: Tensor | None) -> Tensor:
    """S or its sums times γ, row by row; S is overwritten."""
    if gamma is None:
        return s
    return s.mul_(gamma[:, None]) if s.dim() == 2 else gamma * s


def kept(layer: nn.Linear, device: torch.device, rows: int) -> Kept:
    """How a linear keeps its `rows` rows: as actprune.convert made it, a plain one by a copy."""
    if isinstance(layer, PrunedLinear):
        return Kept(layer.spec, layer.next_draw(device), layer.per_row(rows))
    return Kept("dense", None, None)


def weights(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as they are multiplied: in autocast's dtype, where it is on.

    Raises InputError where they are sharded: the chain runs in place of the layer, so fully_shard
    gathers them with the chain's own unit or not at all.
    """
    if not torch.compiler.is_compiling() and hasattr(layer.weight, "device_mesh"):
        raise InputError(
            "lean: expected whole weights, got a sharded one: fully_shard the block that holds the "
            "chain, not its layers"
        )
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)
