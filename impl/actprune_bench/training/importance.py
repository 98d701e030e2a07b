"""What each training image is worth to random selections: how wrong the model last was on it.

A weight gradient sums dYᵀX over the images of a batch, and dY of an image that is fitted is next to
nothing: to sample its activations is a waste. dY is not known in the forward pass, but ‖softmax −
target‖ of the image's last visit tells much of it. (WTA-CRS, Liu et al. 2023, keeps the norms of
gradients for the like.) Selections stay unbiased: only the noise depends on the weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from actprune.layers.convert import weigh
from actprune_bench.training.distributed import ALONE, World
from actprune_common.errors import InputError

FLOOR = 0.2
"""Of the batch's mean error, added to each: an image that was fitted may have been forgotten."""


class Importance:
    """The last error of every training image, four bytes each; 1 before its first visit."""

    def __init__(self, model: nn.Module, images: int) -> None:
        self.errors = torch.ones(images)
        self._logits: Tensor | None = None
        model.register_forward_hook(self._keep)

    def before(self, model: nn.Module, chosen: Tensor, share: slice) -> None:
        """Weigh the images `chosen` of a batch, of which the model is about to see a share."""
        errors = self.errors[chosen]
        weights = (errors + FLOOR * errors.mean().clamp(min=1e-3))[share]
        weigh(model, weights.to(next(model.parameters()).device))

    def after(self, chosen: Tensor, labels: Tensor, world: World = ALONE) -> None:
        """Take the errors of the images `chosen`, of which the model has just seen this rank's.

        labels: of this rank's images.
        """
        if self._logits is None:
            raise InputError("importance: expected a forward pass before `after`, saw none")
        errors = self._logits.float().softmax(1)
        errors[torch.arange(len(labels)), labels] -= 1
        # of a diverging run nothing is known
        self.errors[chosen] = world.gather(errors.norm(dim=1).nan_to_num_(1.0))
        self._logits = None

    def _keep(self, model: nn.Module, inputs: Any, logits: Tensor) -> None:
        if model.training and torch.is_grad_enabled():
            self._logits = logits.detach()
