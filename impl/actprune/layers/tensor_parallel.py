"""Linears whose weight and input are sharded (torch.distributed.tensor): each rank its own part."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import Placement

Multiply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""input (..., in), weight (out, in) and bias (out) to input Wᵀ + b (..., out)."""


class _Along(NamedTuple):
    """How a product lies along one dimension of the mesh."""

    out: "Placement"
    grad_input: "Placement"
    grad_weight: "Placement"
    bias: "Placement"
    grad_bias: "Placement"


def over_shards(multiply: Multiply, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return input Wᵀ + b of which each rank multiplies, and keeps, its own part.

    Where input and weight lie otherwise than in column, row, sequence and data parallelism, torch
    multiplies, and keeps the input as it is.
    """
    from torch.distributed.tensor import DTensor

    if not isinstance(input, DTensor) or not isinstance(weight, DTensor):
        return F.linear(input, weight, bias)
    pairs = zip(input.placements, weight.placements, strict=True)
    along = [_along(of_input, of_weight, input.dim()) for of_input, of_weight in pairs]
    whole = [each for each in along if each is not None]
    if len(whole) < len(along) or not (bias is None or isinstance(bias, DTensor)):
        return F.linear(input, weight, bias)
    out, grad_input, grad_weight, of_bias, grad_bias = zip(*whole, strict=True)
    # a sum over ranks gets its bias once, when it is a sum
    later = any(each.is_partial() for each in out)
    local_bias = None
    if bias is not None and not later:
        local_bias = bias.redistribute(placements=of_bias).to_local(grad_placements=grad_bias)
    local = multiply(
        input.to_local(grad_placements=grad_input),
        weight.to_local(grad_placements=grad_weight),
        local_bias,
    )
    shape = torch.Size([*input.shape[:-1], weight.shape[0]])
    stride = local.new_empty(shape, device="meta").stride()
    mesh = input.device_mesh
    made = DTensor.from_local(local, mesh, out, run_check=False, shape=shape, stride=stride)
    return made + bias if later and bias is not None else made


def _along(input: "Placement", weight: "Placement", dims: int) -> _Along | None:
    """How input (..., in), of `dims` dimensions, times weight (out, in) lies; None: not our way."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    whole, last, rows = Replicate(), Shard(dims - 1), Shard(0)
    if input.is_replicate() and weight.is_replicate():
        return _Along(whole, whole, whole, whole, whole)
    if input.is_replicate() and weight == rows:
        return _Along(last, Partial(), rows, rows, rows)
    if input == last and weight == Shard(1):
        return _Along(Partial(), input, weight, whole, whole)
    if isinstance(input, Shard) and input != last and weight.is_replicate():
        return _Along(input, input, Partial(), whole, Partial())
    return None
