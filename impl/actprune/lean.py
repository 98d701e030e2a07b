"""The lean ResMLP block: what its linears keep compressed serves every other gradient too.

Two autograd functions, one for each half of a block, residual included. Each keeps the compressed
inputs of its linears and, of GELU, 2 bits; affine and LayerScale keep nothing. What is kept and
multiplied has the dtype of the linears' weights, all else that of the block's input. docs/math.md
derives the gradients, actprune.models.resmlp.Block is the twin that they are tested against.
"""

from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from actprune.errors import InputError
from actprune.linear import PrunedLinear
from actprune.models.resmlp import Block
from actprune.ops import compress, gelu_, gelu_backward_, row_dot
from actprune.ops import grad_weight as product

Model = TypeVar("Model", bound=nn.Module)


class Kept(NamedTuple):
    """How one linear's input is kept."""

    spec: str
    draw: Tensor | None


class _Across(torch.autograd.Function):
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
        buffers = compress(a.view(-1, patches), kept.spec, kept.draw)
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


class _Within(torch.autograd.Function):
    """x + γ (W₂ GELU(W₁ (α x + β) + b₁) + b₂) for each patch of x (batch, patches, dim)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,
        beta: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        gamma: Tensor,
        kept: tuple[Kept, Kept],
        exact: bool,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        dtype = weight1.dtype
        buffers1 = compress(rows.to(dtype), kept[0].spec, kept[0].draw)
        u = F.linear(torch.addcmul(beta, rows, alpha).to(dtype), weight1, bias1)
        slope = u if exact else gelu_(u)
        u = F.gelu(u) if exact else u
        buffers2 = compress(u, kept[1].spec, kept[1].draw)
        out = F.linear(u, weight2, bias2).to(x.dtype)
        del u
        ctx.specs, ctx.first, ctx.exact = (kept[0].spec, kept[1].spec), len(buffers1), exact
        parameters = alpha, beta, weight1, weight2, bias2, gamma
        ctx.save_for_backward(*parameters, slope, *buffers1, *buffers2)
        return out.mul_(gamma).add_(rows).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, weight1, weight2, bias2, gamma, slope, *buffers = ctx.saved_tensors
        buffers1, buffers2 = buffers[: ctx.first], buffers[ctx.first :]
        d_out = grad_out.reshape(-1, grad_out.shape[-1])
        dtype = weight1.dtype
        s = product(buffers2, d_out.to(dtype), ctx.specs[1], weight2.shape[1])
        sums = d_out.sum(0)
        grad_gamma = (weight2 * s).sum(1, dtype=sums.dtype) + bias2 * sums
        grad_weight2, grad_bias2 = s.mul_(gamma[:, None]), (gamma * sums).to(dtype)
        dh = (d_out * gamma).to(dtype) @ weight2
        if ctx.exact:
            dh = torch.ops.aten.gelu_backward(dh, slope)
        else:
            gelu_backward_(dh, slope)
        g = product(buffers1, dh, ctx.specs[0], weight1.shape[1])
        grad_bias1 = dh.sum(0)
        grad_alpha = (weight1 * g).sum(0, dtype=d_out.dtype)
        grad_beta = (grad_bias1 @ weight1).to(d_out.dtype)
        grad_weight1 = (g * alpha + grad_bias1[:, None] * beta).to(dtype)
        grad_x = (dh @ weight1).to(d_out.dtype).mul_(alpha).add_(d_out).view(grad_out.shape)
        of_linears = grad_weight1, grad_bias1, grad_weight2, grad_bias2
        return grad_x, grad_alpha, grad_beta, *of_linears, grad_gamma, None, None


class LeanBlock(Block):
    """A Block that keeps the compressed inputs of its three linears, 2 bits of GELU, and no more.

    Outputs are the Block's. Gradients are exact but for what pruning takes from those of weights,
    α and γ, and for GELU's derivative, off by up to 0.16. In eval mode and
    without gradients it is the Block.
    """

    exact: bool
    """Whether GELU keeps its input whole instead of 2 bits of its derivative."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        norm1, norm2 = self.norm1, self.norm2
        attn, fc1, fc2 = self.attn, self.mlp.fc1, self.mlp.fc2
        across, first, second = (_weights(layer, x) for layer in (attn, fc1, fc2))
        with torch.autocast(x.device.type, enabled=False):
            x = _Across.apply(  # type: ignore[no-untyped-call]
                x, norm1.alpha, norm1.beta, *across, self.gamma_1, _kept(attn, x)
            )
            kept = _kept(fc1, x), _kept(fc2, x)
            scale = norm2.alpha, norm2.beta
            out: Tensor = _Within.apply(  # type: ignore[no-untyped-call]
                x, *scale, *first, *second, self.gamma_2, kept, self.exact
            )
        return out


def lean(model: Model, *, exact: bool = False) -> Model:
    """Make every ResMLP block of `model` lean, in place; returns `model`.

    What its linears keep is as `actprune.convert` made them: a plain one keeps a copy of its input.
    Parameters, their names and the state_dict stay. exact: keep GELU's input whole, not 2 bits of
    its derivative. Raises InputError where the model has no such block.
    """
    found = [module for module in model.modules() if type(module) in (Block, LeanBlock)]
    if not found:
        raise InputError("lean: expected a model with ResMLP blocks, got one without")
    for block in found:
        block.__class__ = LeanBlock
        assert isinstance(block, LeanBlock)
        block.exact = exact
    return model


def unlean(model: nn.Module) -> None:
    """Turn every lean block back into the one it was."""
    for module in model.modules():
        if isinstance(module, LeanBlock):
            del module.exact
            module.__class__ = Block  # type: ignore[assignment]


def _kept(layer: nn.Linear, x: Tensor) -> Kept:
    if isinstance(layer, PrunedLinear):
        return Kept(layer.spec, layer.next_draw(x.device))
    return Kept("dense", None)


def _weights(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias as they are multiplied: in autocast's dtype, where it is on."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return layer.weight.to(dtype), layer.bias.to(dtype)
