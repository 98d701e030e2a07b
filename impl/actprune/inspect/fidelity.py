"""Layer by layer, how near the weight gradients of a pruned model are to the dense ones."""

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from actprune.inspect.gradients import Loss, backpropagate, loss_of, training_copy
from actprune.layers.convert import is_random, pruned, redraw
from actprune.strategies.base import replacements
from actprune.strategies.compile import compile_alike
from actprune.strategies.grammar import undo
from actprune.strategies.lean import around_gelus
from actprune.strategies.saving import Saving
from actprune_common.errors import check_at_least


@dataclass(frozen=True)
class LayerFidelity:
    """One layer's weight gradient ĝ against the dense g: the same weights, the same batch.

    Norms are over all elements. Where g and ĝ are both zero, ĝ counts as right.

    Example:
        >>> one = actprune.LayerFidelity("fc1", 0.9, 1.0, rel_error=0.4, bias=0.2, draws=4)
        >>> one.noise
        0.2
    """

    layer: str
    cosine: float
    """Between ĝ and g, the mean over the draws."""
    norm_ratio: float
    """‖ĝ‖ / ‖g‖, the mean over the draws."""
    rel_error: float
    """‖ĝ - g‖ / ‖g‖ of one draw: the root mean square over the draws."""
    bias: float
    """‖mean(ĝ) - g‖ / ‖g‖, the mean over the draws; compare with `noise`."""
    draws: int

    @property
    def noise(self) -> float:
        """What would be left in `bias` if ĝ were right on average and its error were all noise."""
        return self.rel_error / math.sqrt(self.draws)


def fidelity(
    model: nn.Module, batch: Sequence[Tensor], *, draws: int = 8, loss: Loss = loss_of
) -> list[LayerFidelity]:
    """Compare the weight gradients of a pruned or lean model with the exact ones, layer by layer.

    The layers are those that are pruned and, where lean, those before and after a GELU, whose
    gradients its 2 bits change. The model is left as it was. Without a random selection every draw
    is the first.

    Args:
        model: one that is converted or lean.
        batch: what `loss(model, *batch)` takes, by default images (batch, ...) and labels (batch,),
            int64.
        draws: how often the loss is differentiated with other random selections, in training mode.
        loss: a scalar of the model and the batch; by default the cross-entropy of images and
            labels.

    Returns:
        The layers in the order of the model; empty where every gradient is exact.

    Raises:
        InputError: draws is below 1, or a layer is a unit of fully_shard.

    Example:
        >>> model = actprune.convert(nn.Linear(64, 10), "bsr:block=1x8,sparsity=0")
        >>> batch = torch.randn(4, 64), torch.tensor([1, 2, 3, 4])
        >>> [round(layer.cosine, 3) for layer in actprune.fidelity(model, batch)]
        [1.0]
    """
    check_at_least("draws", draws, 1)
    sparse = training_copy(model)
    if compile_alike(sparse, model) or any(isinstance(one, Saving) for one in replacements(model)):
        known: Collection[str] = {name for name, m in model.named_modules() if _has_matrix(m)}
    else:
        known = pruned(model).keys() | around_gelus(model)
    layers = [name for name, _ in model.named_modules() if name in known]
    if not layers:
        return []
    dense = training_copy(model)
    undo(dense)
    tallies = {name: _Tally(g) for name, g in _gradients(dense, layers, batch, loss).items()}
    for count in range(draws if is_random(model) else 1):
        redraw(sparse, count)
        for name, gradient in _gradients(sparse, layers, batch, loss).items():
            tallies[name].add(gradient)
    return [tally.summary(name, draws) for name, tally in tallies.items()]


def mean_cosine(layers: Iterable[LayerFidelity]) -> float:
    """How well the direction of the weight gradients is kept, over the layers; 1 without any."""
    return statistics.fmean([layer.cosine for layer in layers] or [1.0])


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.requires_grad and weight.dim() > 1


def _gradients(
    model: nn.Module, layers: Iterable[str], batch: Sequence[Tensor], loss: Loss
) -> dict[str, Tensor]:
    """Weight gradients by layer, in float64; a layer that takes no part in the loss has none."""
    backpropagate(model, batch, loss)
    found = {name: model.get_submodule(name).weight.grad for name in layers}
    return {name: grad.double() for name, grad in found.items() if isinstance(grad, Tensor)}


@dataclass
class _Tally:
    """Sums over the draws of one layer."""

    dense: Tensor
    total: Tensor | None = None
    cosines: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)

    def add(self, gradient: Tensor) -> None:
        self.total = gradient if self.total is None else self.total + gradient
        same = torch.equal(gradient, self.dense)
        cosine = torch.cosine_similarity(gradient.flatten(), self.dense.flatten(), dim=0)
        self.cosines.append(1.0 if same else float(cosine))
        self.ratios.append(1.0 if same else self._relative(gradient))
        self.squares.append(self._relative(gradient - self.dense) ** 2)

    def summary(self, layer: str, draws: int) -> LayerFidelity:
        assert self.total is not None
        bias = self._relative(self.total / len(self.cosines) - self.dense)
        mean = statistics.fmean
        error = math.sqrt(mean(self.squares))
        return LayerFidelity(layer, mean(self.cosines), mean(self.ratios), error, bias, draws)

    def _relative(self, part: Tensor) -> float:
        """‖part‖ / ‖g‖; 0 where there is nothing to be relative to and no part."""
        norm = part.norm()
        return float(norm / self.dense.norm()) if norm else 0.0
