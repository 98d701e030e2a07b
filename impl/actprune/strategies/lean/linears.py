"""What a chain needs of its linears: how each keeps its input, and its weights."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actprune.layers.casting import autocast
from actprune.layers.linear import PrunedLinear
from actprune_common.errors import InputError


class Kept(NamedTuple):
    """How one linear's input is kept."""

    spec: str
    draw: Tensor | None
    importance: Tensor | None
    """(rows,), as actprune.weigh says."""


def kept(layer: nn.Linear, x: Tensor, rows: int) -> Kept:
    """How a linear keeps its `rows` rows: as actprune.convert made it, a plain one by a copy.

    x: what the chain is given, from which random selections follow.
    """
    if isinstance(layer, PrunedLinear):
        return Kept(layer.spec, layer.draw_for(x, layer.weight), layer.per_row(rows))
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
    weight, bias = autocast(x.device, layer.weight, layer.bias)
    return weight, bias


def needed(ctx: Any, grads: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The gradients of the first arguments, None where none is asked for."""
    given = ctx.needs_input_grad[: len(grads)]  # False where there is no such parameter
    return [grad if needed else None for grad, needed in zip(grads, given, strict=True)]
