"""A model's gradients of one batch, without touching the model."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[..., Tensor]
"""Called with a model and a batch's tensors; returns a scalar to differentiate."""


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch, a scalar."""
    return F.cross_entropy(model(images), labels)


def training_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in training mode."""
    return copy.deepcopy(model).train()


def backpropagate(model: nn.Module, batch: Sequence[Tensor], loss: Loss) -> None:
    """Run one forward and backward pass; fresh gradients are then in `model`'s parameters.

    torch's random numbers (dropout's) are the same in every call, and afterwards go on as if there
    had been none.
    """
    model.zero_grad(set_to_none=True)
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.enable_grad():
        torch.manual_seed(0)
        loss(model, *batch).backward()  # type: ignore[no-untyped-call]
