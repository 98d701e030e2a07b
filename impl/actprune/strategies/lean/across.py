"""The chain across patches: affine, linear, LayerScale and residual as one autograd function.

docs/math.md derives the gradients; the plain layers are the twins that they are tested against.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from actprune.layers import ops
from actprune.strategies.lean.linears import Kept, needed
from actprune_kernels.sizes import wide


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
        x_needs, alpha_needs, beta_needs, weight_needs, _, gamma_needs = ctx.needs_input_grad[:6]
        a = torch.empty(batch, dim, patches, dtype=weight.dtype, device=x.device)
        a.copy_(x.transpose(1, 2))
        buffers = []
        if alpha_needs or weight_needs or gamma_needs:
            buffers = ops.compress(a.view(-1, patches), *kept)
        a.mul_(alpha[:, None]).add_(beta[:, None])
        across = F.linear(a, weight, bias)
        del a
        ctx.spec, ctx.dtypes = kept.spec, (x.dtype, weight.dtype)
        through = x_needs or alpha_needs or beta_needs or gamma_needs
        multiplied = weight if through else None, bias if gamma_needs else None
        ctx.save_for_backward(alpha, beta, gamma, *multiplied, *buffers)
        dtype = torch.promote_types(across.dtype, torch.promote_types(x.dtype, gamma.dtype))
        return torch.addcmul(x, across.to(dtype).transpose(1, 2), gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, gamma, weight, bias, *buffers = ctx.saved_tensors
        needs = ctx.needs_input_grad[:6]
        x_needs, alpha_needs, beta_needs, weight_needs, bias_needs, gamma_needs = needs
        grad_x = grad_alpha = grad_beta = grad_weight = grad_bias = grad_gamma = None
        batch, patches, dim = grad_out.shape
        dtype, (x_dtype, weight_dtype) = wide(ctx.dtypes[1]), ctx.dtypes
        rows = torch.empty(batch, dim, patches, dtype=weight_dtype, device=grad_out.device)
        rows.copy_(grad_out.transpose(1, 2))
        if weight is not None:  # v: batch, dim, patches: the gradient by α x + β, but for γ
            v = rows @ weight
        if alpha_needs or gamma_needs:
            dots = ops.row_dot(buffers, v.view(-1, patches), ctx.spec).view(batch, dim).sum(0)
            grad_alpha = gamma * dots
        if beta_needs or gamma_needs:
            sums = v.sum((0, 2), dtype=dtype)
            grad_beta = gamma * sums
        if gamma_needs:
            of_bias = (rows.sum(0, dtype=dtype) @ bias.to(dtype)).to(dtype)
            grad_gamma = alpha * dots + beta * sums + of_bias
        if weight_needs or bias_needs:
            rows.mul_(gamma[:, None])
            grad_bias = rows.sum((0, 1))
        if weight_needs:
            shift = torch.einsum("bdp,d->p", rows, beta.to(rows.dtype))
            rows.mul_(alpha[:, None])
            grad_weight = ops.grad_weight(buffers, rows.view(-1, patches), ctx.spec, patches)
            grad_weight += shift[:, None]
        del rows, buffers
        if x_needs:
            through = v.transpose(1, 2).to(grad_out.dtype)
            grad_x = torch.addcmul(grad_out, through, gamma * alpha).to(x_dtype)
        of_all = grad_x, grad_alpha, grad_beta, grad_weight, grad_bias, grad_gamma
        return *needed(ctx, of_all), None
