"""A linear layer that keeps its input compressed: exact forward, exact input and bias gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from actprune.layers import ops
from actprune_common.errors import InputError


class _PrunedLinear(torch.autograd.Function):
    """y = x Wᵀ + b, with x kept as `spec` says. x: (rows, in), W: (out, in), b: (out).

    Without a spec, as in eval mode, nothing is kept for W: its gradient goes to _Refuse, which runs
    only where somebody asks for it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spec: str | None,
        draw: Tensor | None,
        sample_importance: Tensor | None,
    ) -> Tensor:
        input_needs, weight_needs = ctx.needs_input_grad[:2]
        ctx.spec, ctx.features = spec, x.shape[1]
        keeps = weight_needs and spec is not None
        buffers = ops.compress(x, spec, draw, sample_importance) if keeps else ()
        ctx.save_for_backward(weight if input_needs else None, *buffers)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        weight, *buffers = ctx.saved_tensors
        input_needs, weight_needs, bias_needs = ctx.needs_input_grad[:3]
        grad_input = grad_output @ weight if input_needs else None
        grad_weight = None
        if weight_needs and ctx.spec is None:
            grad_weight = grad_output.new_zeros(()).expand(grad_output.shape[1], ctx.features)
        elif weight_needs:
            grad_weight = ops.grad_weight(buffers, grad_output, ctx.spec, ctx.features)
        grad_bias = grad_output.sum(0) if bias_needs else None
        return grad_input, grad_weight, grad_bias, None, None, None


class _Refuse(torch.autograd.Function):
    """The weight itself; its gradient is an error."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weight: Tensor) -> Tensor:
        raise RuntimeError(
            "a pruned linear ran in eval mode, where it keeps nothing for its weight gradient: "
            "call model.train() before the forward pass, or weight.requires_grad_(False)"
        )


class Pruned(nn.Module):
    """A layer that keeps inputs as `spec` says; a layer's class is exchanged for one that has this.

    `draw` (int64: seed, stream, counter) is None for a selection that is not random, and decides
    the next selection where it is.
    """

    spec: str
    draw: Tensor | None
    sample_importance: Tensor | None = None
    """Of actprune.weigh: what each sample of the batch is worth in the selection."""

    def extra_repr(self) -> str:
        found = super().extra_repr()
        return f"{found}, spec={self.spec!r}" if found else f"spec={self.spec!r}"

    def per_row(self, rows: int) -> Tensor | None:
        """The samples' importance for each of `rows` rows, a sample's next to each other."""
        importance = self.sample_importance
        if importance is None:
            return None
        count = len(importance)
        if not count or rows % count:
            raise InputError(f"weights: expected one for each sample, got {count} for {rows} rows")
        return importance.repeat_interleave(rows // count)

    def next_draw(self, device: torch.device) -> Tensor | None:
        """The draw of the selection that is due, on `device`; the next one is another."""
        if self.draw is None:
            return None
        if self.draw.device != device:  # there a captured CUDA graph goes on counting, too
            self.draw = self.draw.to(device)
        draw = self.draw.clone()
        self.draw[2].add_(1)  # a tensor, so that compiled code goes on counting
        return draw

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The draw moves along: a device that changed at the first call would compile it twice."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.draw is not None:
            self.draw = placed(self.draw, self)
        return self

    def multiplied(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """input Wᵀ + b, (..., in) to (..., out), with the input kept compressed in training.

        In eval mode nothing is kept, and a gradient of the weight is refused.
        """
        needed = (part is not None and part.requires_grad for part in (input, weight, bias))
        if not (torch.is_grad_enabled() and any(needed)):
            return F.linear(input, weight, bias)
        x, weight, bias = autocast(input.device, input, weight, bias)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        with torch.autocast(x.device.type, enabled=False):
            kept: tuple[Any, ...] = (None, None, None)
            if self.training:
                kept = self.spec, self.next_draw(rows.device), self.per_row(len(rows))
            else:
                weight = _Refuse.apply(weight)  # type: ignore[no-untyped-call]
            out = _PrunedLinear.apply(rows, weight, bias, *kept)  # type: ignore[no-untyped-call]
        # no view, which fully_shard warns of where it is the output of its unit
        result: Tensor = torch.ops.aten._unsafe_view.default(out, [*x.shape[:-1], weight.shape[0]])
        return result


class PrunedLinear(Pruned, nn.Linear):
    """An nn.Linear whose input is kept compressed for the backward pass.

    `actprune.convert` turns layers into this class in place; parameters, names and state_dict stay
    those of nn.Linear.

    Example:
        >>> layer = actprune.convert(nn.Linear(8, 2), "csr:sparsity=0.5")
        >>> isinstance(layer, actprune.PrunedLinear), layer.spec
        (True, 'csr:sparsity=0.5')
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if input.shape[-1] != self.in_features:
            got = tuple(input.shape)
            raise InputError(f"input: expected {self.in_features} features last, got {got}")
        return self.multiplied(input, self.weight, self.bias)


def placed(draw: Tensor, layer: nn.Module) -> Tensor:
    """The draw on the layer's device; on meta it would have no numbers."""
    device = next(layer.parameters()).device
    return draw if device.type == "meta" else draw.to(device)


def autocast(device: torch.device, *parts: Tensor | None) -> tuple[Any, ...]:
    """What nn.Linear computes with under autocast: everything in autocast's dtype."""
    if not torch.is_autocast_enabled(device.type):
        return parts
    dtype = torch.get_autocast_dtype(device.type)
    return tuple(None if part is None else part.to(dtype) for part in parts)
