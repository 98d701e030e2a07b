"""checkpoint and selective: blocks that are computed again in the backward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts as selective_contexts

from actprune.layers.blocks import blocks_of
from actprune.layers.sharding import check_unsharded
from actprune.saved.rules import Rule
from actprune.strategies.base import Replacement, Strategy, replace
from actprune_common.errors import InputError, expected

_aten = torch.ops.aten
_MATRICES = _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default
_PRODUCTS = [*_MATRICES, _aten.convolution.default]


class Recomputed(Replacement):
    """A block's forward that is computed again in the backward pass from its inputs.

    In eval mode a block that is given a cache of keys and values fills it, and keeps what it keeps.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces; what its operators keep is dropped until it is needed."""
        given = tree_leaves((args, kwargs))
        needed = torch.is_grad_enabled() and any(
            isinstance(part, Tensor) and part.requires_grad
            for part in (*self.module.parameters(), *given)
        )
        if not needed or not (self.module.training or all(map(_is_no_cache, given))):
            return self.replaced(*args, **kwargs)
        # a second pass would add to a cache of keys and values; transformers leaves it out as well
        args, kwargs = tree_map(lambda part: part if _is_no_cache(part) else None, (args, kwargs))
        return self.recomputed(args, kwargs)

    def recomputed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call what this one replaces in two passes."""
        raise NotImplementedError


class KeepingInputs(Recomputed):
    """A block's forward that keeps its inputs alone."""

    def recomputed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reentrant: the other kind hides its inputs from the hooks that count saved bytes, and
        compresses what it then computes again. It knows tensors in a row, in and out, alone."""
        if torch.compiler.is_compiling():  # where there are no two kinds
            return checkpoint(self.replaced, *args, use_reentrant=False, **kwargs)
        given, tree = tree_flatten((args, kwargs))
        trees: list[TreeSpec] = []

        def run(_: Tensor, *given: Any) -> tuple[Any, ...]:
            args, kwargs = tree_unflatten(given, tree)
            again = torch.is_grad_enabled()  # the first pass has no gradients
            with _statistics_kept(self.module) if again else nullcontext():
                out, out_tree = tree_flatten(self.replaced(*args, **kwargs))
            trees[:] = [out_tree]
            _check_output(out)
            return tuple(out)

        # behind a frozen stem no input has a gradient, without which it gives parameters none
        anchor = torch.empty(0, requires_grad=True)
        return tree_unflatten(checkpoint(run, anchor, *given, use_reentrant=True), trees[0])


class KeepingProducts(Recomputed):
    """A block's forward that keeps its inputs and the outputs of its products.

    Of a pruned layer it keeps the dense output, so that pruning saves it nothing between forward
    and backward.
    """

    def recomputed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """torch's selective checkpointing."""
        contexts = partial(selective_contexts, _PRODUCTS)
        if not torch.compiler.is_compiling():  # which knows no contexts but torch's
            contexts = partial(_contexts, self.module)
        return checkpoint(self.replaced, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@dataclass(frozen=True)
class Checkpoint(Strategy):
    """Every block is computed again in the backward pass from its inputs, which it keeps."""

    name: str = "checkpoint"
    blocks: str | None = None
    """A glob on module names; without it, layers.blocks decides."""
    of_blocks = True
    replacement: ClassVar[type[Recomputed]] = KeepingInputs

    @property
    def spec(self) -> str:
        """Such as checkpoint, or checkpoint(encoder.*)."""
        return self.name if self.blocks is None else f"{self.name}({self.blocks})"

    def given(self, argument: str) -> Strategy:
        """Return the strategy for the blocks that a glob names."""
        if not argument or set(argument) & set(" ;=>()"):
            raise InputError(f"spec: expected a glob in {self.name}(), got {argument!r}")
        return changed(self, blocks=argument)

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Replace the blocks' forwards. Raises InputError without a block."""
        check_unsharded(model.named_modules())
        found = blocks_of(model, self.blocks)
        if not found and self.blocks is not None:
            raise InputError(f"{self.name}: {self.blocks!r} matches no module of the model")
        if not found:
            raise InputError(
                f"{self.name}: expected a model with blocks, repeated modules of one class in an "
                "nn.ModuleList or nn.Sequential, got one without; name them by a glob, as in "
                f"{self.name}(layers.*)+dense"
            )
        for block in found:
            replace(block, self.replacement(block))


@dataclass(frozen=True)
class Selective(Checkpoint):
    """The same, but for the outputs of a block's products, which are kept too."""

    name: str = "selective"
    hides = True
    replacement = KeepingProducts


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """Return the contexts of a block's first pass and of its second."""
    first, again = selective_contexts(_PRODUCTS)  # type: ignore[no-untyped-call]

    @contextmanager
    def second() -> Iterator[None]:
        with _statistics_kept(module), again:
            yield

    return first, second()


def _is_no_cache(part: Any) -> bool:
    return not hasattr(part, "get_seq_length")


def _check_output(parts: list[Any]) -> None:
    """Raises InputError on what may hold tensors whose gradients would be lost."""
    for part in parts:
        if not isinstance(part, Tensor | bool | int | float | str | None):
            what = "blocks that return tensors in tuples, lists and dicts"
            raise expected("checkpoint", what, type(part).__name__)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms come out with the running statistics with which they went in."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:  # torch ends the second pass by an exception where it has all that it needs
        for buffer, before in kept:
            buffer.data.copy_(before)  # autograd takes no notice, as of the norm's own changes
