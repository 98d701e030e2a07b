"""Chains of layers as one autograd function, in which what a linear keeps serves the others.

It keeps the compressed inputs of its linears and 2 or 4 bits of GELU, each only where a gradient
that is asked for reads it; affine and LayerScale keep nothing. What is kept and multiplied has the
dtype of the linears' weights, all else that of the plain layers. docs/math.md derives the
gradients; the plain layers are the twins that they are tested against.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from actprune.layers import ops
from actprune.layers.casting import without_autocast
from actprune.strategies.lean.linears import Kept, kept, needed, weights


def lean_chain(
    x: Tensor,
    first: nn.Linear,
    second: nn.Linear | None,
    affine: tuple[Tensor, Tensor] | None,
    scale: Tensor | None,
    gelu: int | None,
    residual: bool = False,
) -> Tensor:
    """What the layers of a chain compute, with what Chain keeps."""
    layers = [first] if second is None else [first, second]
    parameters = [weights(layer, x) for layer in layers]
    alpha, beta = (None, None) if affine is None else (part.reshape(-1) for part in affine)
    gamma = None if scale is None else scale.reshape(-1)
    both = [kept(layer, x, x.shape[:-1].numel()) for layer in layers]
    second_parameters = parameters[1] if second is not None else (None, None)
    with without_autocast(x.device):
        out: Tensor = Chain.apply(  # type: ignore[no-untyped-call]
            x, alpha, beta, *parameters[0], *second_parameters, gamma, both, gelu, residual
        )
    return out


class Chain(torch.autograd.Function):
    """(x +) γ (W₂ GELU(W₁ (α x + β) + b₁) + b₂) for x (..., features).

    α with β, b₁, b₂, γ and W₂ with its GELU may each be None and are then left out. gelu: bits that
    are kept of GELU's derivative; None: its input is kept whole.
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
        stores: tuple[Kept, ...],
        gelu: int | None,
        residual: bool,
    ) -> Tensor:
        needs, single = Needs(*ctx.needs_input_grad[:8]), weight2 is None
        rows = x.reshape(-1, x.shape[-1])
        dtype, slope = weight1.dtype, None
        buffers1, buffers2 = [], []
        if needs.first(single):
            buffers1 = ops.compress(rows.to(dtype), *stores[0])
        h = rows if alpha is None or beta is None else torch.addcmul(beta, rows, alpha)
        u = F.linear(h.to(dtype), weight1, bias1)
        del h
        if weight2 is not None:
            if not needs.inner:
                torch.ops.aten.gelu_(u)
            elif gelu is None:
                u, slope = F.gelu(u), u
            else:
                slope = ops.gelu_(u, gelu)
            if needs.second:
                buffers2 = ops.compress(u, *stores[1])
            u = F.linear(u, weight2, bias2)
        ctx.specs, ctx.first, ctx.single = [kept.spec for kept in stores], len(buffers1), single
        ctx.features, ctx.gelu, ctx.residual = (x.shape[-1], weight1.shape[0]), gelu, residual
        # autocast's copies of what is multiplied are kept no longer than a parameter would cost
        multiplied = (
            weight1 if needs.before or (single and needs.gamma) else None,
            weight2 if needs.inner or needs.gamma else None,
            (bias1 if single else bias2) if needs.gamma else None,
        )
        ctx.save_for_backward(alpha, beta, gamma, *multiplied, slope, *buffers1, *buffers2)
        out = u
        if gamma is not None:
            out = out.to(torch.promote_types(out.dtype, gamma.dtype)).mul_(gamma)
        if residual:
            out = out.to(torch.promote_types(out.dtype, x.dtype)).add_(rows)
        ctx.dtypes = x.dtype, dtype, torch.promote_types(x.dtype, out.dtype)
        # no view, which fully_shard warns of where it is the output of its unit
        return torch.ops.aten._unsafe_view.default(out, [*x.shape[:-1], out.shape[-1]])  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, _, weight1, *_ = ctx.saved_tensors
        needs, (x_dtype, dtype, out_dtype) = Needs(*ctx.needs_input_grad[:8]), ctx.dtypes
        d_out = grad_out.reshape(-1, grad_out.shape[-1]).to(out_dtype)
        dh, g, grad_bias1, *others = _of_linears(ctx, needs, d_out)
        grad_x = grad_alpha = grad_beta = None
        grad_weight1 = g
        if needs.alpha:
            grad_alpha = (weight1 * g).sum(0, dtype=out_dtype)
        if needs.beta:
            grad_beta = (grad_bias1 @ weight1).to(out_dtype)
        if alpha is not None and needs.weight1:
            grad_weight1 = (g * alpha + grad_bias1[:, None] * beta).to(dtype)
        if needs.x:
            grad_x = (dh @ weight1).to(out_dtype)
            if alpha is not None:
                grad_x.mul_(alpha)
            if ctx.residual:
                grad_x.add_(d_out)
            grad_x = grad_x.to(x_dtype).view(*grad_out.shape[:-1], grad_x.shape[-1])
        of_all = grad_x, grad_alpha, grad_beta, grad_weight1, grad_bias1, *others
        return *needed(ctx, of_all), None, None, None


def _of_linears(ctx: Any, needs: "Needs", d_out: Tensor) -> tuple[Any, ...]:
    """Gradients by what W₁ gives, and of W₁ (but for α and β), b₁, W₂, b₂ and γ."""
    alpha, beta, gamma, weight1, weight2, bias, slope, *buffers = ctx.saved_tensors
    dtype, single, (first, second) = ctx.dtypes[1], ctx.single, ctx.features
    dh = g = s = grad_bias1 = grad_gamma = None
    sums = d_out.sum(0)
    if single and needs.first(single):
        s = ops.grad_weight(buffers, d_out.to(dtype), ctx.specs[0], first)
    elif not single and needs.second:
        s = ops.grad_weight(buffers[ctx.first :], d_out.to(dtype), ctx.specs[1], second)
    if needs.gamma:  # of γ ∘ (W u + b): S = dOutᵀ·u
        whole = s * alpha + sums[:, None] * beta if single and alpha is not None else s
        grad_gamma = ((weight1 if single else weight2) * whole).sum(1, dtype=sums.dtype)
        grad_gamma = grad_gamma if bias is None else grad_gamma + bias * sums
    if gamma is not None:
        s, sums = None if s is None else s.mul_(gamma[:, None]), gamma * sums
    sums = sums.to(dtype)
    if needs.x if single else needs.inner:
        dh = (d_out if gamma is None else d_out * gamma).to(dtype)
    if single:
        return dh, s, sums, None, None, grad_gamma
    if needs.inner:
        dh = dh @ weight2
        if ctx.gelu is None:
            dh = torch.ops.aten.gelu_backward(dh, slope)
        else:
            ops.gelu_backward_(dh, slope, ctx.gelu)
        grad_bias1 = dh.sum(0)
    if needs.first(single):
        g = ops.grad_weight(buffers[: ctx.first], dh, ctx.specs[0], first)
    return dh, g, grad_bias1, s, sums, grad_gamma


class Needs(NamedTuple):
    """Which of a chain's arguments need a gradient, and what must be kept or computed for that.

    single: the chain has one linear and no GELU.
    """

    x: bool
    alpha: bool
    beta: bool
    weight1: bool
    bias1: bool
    weight2: bool
    bias2: bool
    gamma: bool

    @property
    def before(self) -> bool:
        """Of something before the first linear, to which W₁ leads."""
        return self.x or self.alpha or self.beta

    @property
    def inner(self) -> bool:
        """Of something before GELU, to which its derivative and W₂ lead."""
        return self.before or self.weight1 or self.bias1

    @property
    def second(self) -> bool:
        """The store of the second linear's input."""
        return self.weight2 or self.gamma

    def first(self, single: bool) -> bool:
        """The store of the first linear's input."""
        return self.weight1 or self.alpha or (single and self.gamma)
