"""Layers in which what a linear keeps compressed serves every other gradient too."""

from typing import TypeVar

from torch import nn

from actprune.layers.sharding import check_unsharded
from actprune.strategies.lean.blocks import LeanBlock, LeanResMLP
from actprune.strategies.lean.forward import LeanForward, forward_of, place
from actprune.strategies.lean.search import gelus_of, search
from actprune_bench.models.resmlp import Block, ResMLP
from actprune_common.errors import InputError
from actprune_kernels.gelu import BITS

__all__ = ["LeanBlock", "around_gelus", "chains", "lean", "unlean"]
Model = TypeVar("Model", bound=nn.Module)


def lean(model: Model, *, gelu: int | None = 2) -> Model:
    """Make every ResMLP block of `model` lean, and every chain of other layers; returns `model`.

    Chains are linear-GELU-linear and affine-linear-scale; `chains` says which are recognised. What
    their linears keep is as `actprune.convert` made them: a plain one keeps a copy of its input. A
    call that is not what was traced runs a module's own forward (docs/your-model.md).
    Parameters, their names and the state_dict stay. gelu: bits that are kept of GELU's derivative,
    2 or 4; None: its input whole. Raises InputError on other bits, on a model that fully_shard has
    sharded and, with the reasons, where there is no block and no chain.
    """
    if gelu is not None and gelu not in BITS:
        raise InputError(f"gelu: expected 2 or 4 bits, or None, got {gelu!r}")
    check_unsharded(model.named_modules())
    blocks = [module for module in model.modules() if type(module) in (Block, LeanBlock)]
    unlean(model)
    found = search(model, gelu)
    if not blocks and not found.parts:
        reasons = "; ".join(f"{name}: {word}" for name, word in list(found.words.items())[:4])
        raise InputError(
            "lean: expected ResMLP blocks, linear-GELU-linear or affine-linear-scale, found none "
            f"({reasons or 'no linear'})"
        )
    for block in blocks:
        block.__class__ = LeanBlock
        assert isinstance(block, LeanBlock)
        block.gelu = gelu
    for module in model.modules():
        if type(module) is ResMLP:
            module.__class__ = LeanResMLP
    for part in found.parts:
        place(part.module, LeanForward(part.module, part.graph, part.inlined))
    return model


def chains(model: nn.Module) -> dict[str, str]:
    """Of each linear outside ResMLP blocks: the chain that lean makes of it, or why none.

    Of those in blocks, too, where hooks or a replaced forward keep the block from being lean.
    """
    return search(model, gelu=None).words


def around_gelus(model: nn.Module) -> set[str]:
    """The names of the linears before and after the GELUs of which a lean model keeps bits."""
    found = set[str]()
    for name, module in model.named_modules():
        forward, within = forward_of(module), set[str]()
        if isinstance(module, LeanBlock):
            within = {"mlp.fc1", "mlp.fc2"}
        elif forward is not None:
            within = gelus_of(forward)
        found |= {f"{name}.{linear}".lstrip(".") for linear in within}
    return found


def unlean(model: nn.Module) -> None:
    """Turn everything lean back into what it was. Raises InputError on a sharded model."""
    check_unsharded(model.named_modules())
    for module in model.modules():
        if isinstance(module, LeanBlock):
            del module.gelu
            module.__class__ = Block  # type: ignore[assignment]
        if isinstance(module, LeanResMLP):
            module.__class__ = ResMLP  # type: ignore[assignment]
        if forward_of(module) is not None:
            place(module, None)
