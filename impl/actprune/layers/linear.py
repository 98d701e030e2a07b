"""A linear layer that keeps its input compressed: exact forward, exact input and bias gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune.formats.base import DTYPES
from actprune.layers import ops
from actprune.layers.casting import autocast, without_autocast
from actprune.layers.draws import draw_for
from actprune.layers.foreign import (
    called_by_fx,
    is_batched,
    over_jagged,
    torch_alone,
    warn_of_adapters,
)
from actprune.layers.one_store import kept_of
from actprune.layers.tensor_parallel import over_shards
from actprune_common.errors import InputError, expected


class _PrunedLinear(torch.autograd.Function):
    """y = x Wᵀ + b, with x kept as `spec` says. x: (rows, in), W: (out, in), b: (out).

    The gradients of x and b can be differentiated again, that of W cannot: _NotAgain says so.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spec: str,
        draw: Tensor | None,
        sample_importance: Tensor | None,
    ) -> Tensor:
        input_needs, weight_needs = ctx.needs_input_grad[:2]
        ctx.spec, ctx.features = spec, x.shape[1]
        buffers = kept_of(x, spec, draw, sample_importance) if weight_needs else ()
        ctx.save_for_backward(weight if input_needs else None, *buffers)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        weight, *buffers = ctx.saved_tensors
        input_needs, weight_needs, bias_needs = ctx.needs_input_grad[:3]
        grad_input = grad_output @ weight if input_needs else None
        grad_weight = None
        if weight_needs and is_batched(grad_output):
            x = ops.to_dense(buffers, ctx.spec, len(grad_output), ctx.features, grad_output.dtype)
            grad_weight = grad_output.t() @ x
        elif weight_needs:
            grad_weight = ops.grad_weight(buffers, grad_output.detach(), ctx.spec, ctx.features)
            if torch.is_grad_enabled() and grad_output.requires_grad:
                grad_weight = _NotAgain.apply(grad_weight, grad_output)  # type: ignore[no-untyped-call]
        grad_bias = grad_output.sum(0) if bias_needs else None
        return grad_input, grad_weight, grad_bias, None, None, None


class _NotAgain(torch.autograd.Function):
    """The gradient of a weight, which cannot be differentiated by what it came from."""

    @staticmethod
    def forward(ctx: Any, grad_weight: Tensor, grad_output: Tensor) -> Tensor:
        return grad_weight.view_as(grad_weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise InputError(
            "gradient: that of a pruned layer's weight was differentiated again, for which its "
            "whole input would be needed: leave the layer out (convert(..., exclude=...)), or "
            "differentiate gradients of inputs alone"
        )


_KNOWN = "a dtype that formats keep, " + ", ".join(map(str, DTYPES))


class Pruned(nn.Module):
    """A layer that keeps inputs as `spec` says; a layer's class is exchanged for one that has this.

    `draw` (int64: seed, stream, offset) is None for a selection that is not random, and with the
    input and the weight decides it where it is.
    """

    spec: str
    draw: Tensor | None
    trained: bool = False
    """Whether it had a parameter to train when it was converted."""
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

    def draw_for(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """The draw of the selection from x (..., features) that `weight` (..., features) meets."""
        if self.draw is None:
            return None
        if self.draw.device != x.device:
            self.draw = self.draw.to(x.device)
        return draw_for(self.draw, x, weight)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The draw moves along: a device that changed at the first call would compile it twice."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.draw is not None:
            self.draw = placed(self.draw, self)
        return self

    def multiplied(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """input Wᵀ + b, (..., in) to (..., out), with the input kept compressed.

        Nothing is kept where no gradient is needed. Under torch.func's transforms, in forward mode
        and in torch.jit.trace it is F.linear. Raises InputError on another number of features and
        on dtypes that no format keeps.
        """
        needed = (part is not None and part.requires_grad for part in (input, weight, bias))
        if torch_alone() or not (torch.is_grad_enabled() and any(needed)):
            return F.linear(input, weight, bias)
        if input.is_nested:
            return over_jagged(self.multiplied, input, weight, bias)
        if hasattr(weight, "device_mesh"):
            return over_shards(self.multiplied, input, weight, bias)
        if input.shape[-1] != weight.shape[1]:
            raise expected("input", f"{weight.shape[1]} features last", tuple(input.shape))
        if self.trained and not weight.requires_grad:
            warn_of_adapters()
        draw = self.draw_for(input, weight) if weight.requires_grad else None
        x, weight, bias = autocast(input.device, input, weight, bias)
        if x.dtype != weight.dtype or x.dtype not in DTYPES:
            known = f"the weight's dtype, {weight.dtype}" if weight.dtype in DTYPES else _KNOWN
            raise expected("input", known, x.dtype)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        with without_autocast(x.device):
            kept = self.spec, draw, self.per_row(len(rows))
            out = _PrunedLinear.apply(rows, weight, bias, *kept)  # type: ignore[no-untyped-call]
        # no view, which fully_shard warns of where it is the output of its unit
        result: Tensor = torch.ops.aten._unsafe_view.default(out, [*x.shape[:-1], weight.shape[0]])
        return result


class PrunedLinear(Pruned, nn.Linear):
    """An nn.Linear whose input is kept compressed for the backward pass.

    `actprune.convert` turns layers into this class in place; parameters, names and state_dict stay
    those of nn.Linear. It keeps in eval mode what it keeps in training: where a gradient is needed.
    Under the transforms of torch.func, in forward mode, in torch.jit.trace and in torch.export it
    is nn.Linear, exact and dense. Gradients of input gradients are exact; that of a weight gradient
    raises InputError.

    Example:
        >>> layer = actprune.convert(nn.Linear(8, 2), "csr:sparsity=0.5")
        >>> isinstance(layer, actprune.PrunedLinear), layer.spec
        (True, 'csr:sparsity=0.5')
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        node: Tensor | None = called_by_fx(self, input)
        return node if node is not None else self.multiplied(input, self.weight, self.bias)


def placed(draw: Tensor, layer: nn.Module) -> Tensor:
    """The draw on the layer's device; on meta it would have no numbers."""
    device = next(layer.parameters()).device
    return draw if device.type == "meta" else draw.to(device)
