"""The lean forms of ResMLP and its blocks."""

import torch
from torch import Tensor

from actprune.layers.casting import without_autocast
from actprune.layers.sharding import is_sharded
from actprune.strategies.lean.across import Across
from actprune.strategies.lean.chain import lean_chain
from actprune.strategies.lean.forms import LeanForm, register
from actprune.strategies.lean.forward import own_way
from actprune.strategies.lean.linears import kept, weights
from actprune_bench.models.resmlp import Block, ResMLP


@register
class LeanBlock(LeanForm, Block):
    """A Block that keeps the compressed inputs of its three linears, few bits of GELU, and no more.

    Outputs are the Block's. Gradients are exact but for what pruning takes from those of weights,
    α and γ, and for GELU's derivative, off by up to 0.16 in 2 bits and 0.04 in 4. In eval mode and
    without gradients, and while a layer in it has hooks or a replaced forward, it is the Block.
    """

    plain = Block
    around_gelu = ("mlp.fc1", "mlp.fc2")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape."""
        if not (self.training and torch.is_grad_enabled()) or self._own_ways():
            return super().forward(x)
        norm1, norm2 = self.norm1, self.norm2
        attn, fc1, fc2 = self.attn, self.mlp.fc1, self.mlp.fc2
        across, store = weights(attn, x), kept(attn, x, len(x) * x.shape[2])
        with without_autocast(x.device):
            x = Across.apply(  # type: ignore[no-untyped-call]
                x, norm1.alpha, norm1.beta, *across, self.gamma_1, store
            )
        affine = norm2.alpha, norm2.beta
        return lean_chain(x, fc1, fc2, affine, self.gamma_2, self.gelu, residual=True)

    def _own_ways(self) -> bool:
        parts = self.norm1, self.attn, self.norm2, self.mlp, self.mlp.fc1, self.mlp.fc2
        return any(own_way(part) and not is_sharded(part) for part in parts)


@register
class LeanResMLP(LeanForm, ResMLP):
    """A ResMLP that applies its last affine to the mean over patches: the same, nothing kept."""

    plain = ResMLP
    whole = False

    def pooled(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to (batch, dim)."""
        if own_way(self.norm):  # a hook expects what the layer is given
            return super().pooled(x)
        out: Tensor = self.norm(x.mean(1))
        return out
