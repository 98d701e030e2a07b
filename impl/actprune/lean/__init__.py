"""Layers in which what a linear keeps compressed serves every other gradient too."""

from typing import TypeVar

from torch import nn

from actprune.errors import InputError
from actprune.lean.blocks import LeanBlock
from actprune.models.resmlp import Block

__all__ = ["LeanBlock", "lean", "unlean"]
Model = TypeVar("Model", bound=nn.Module)


def lean(model: Model, *, exact: bool = False) -> Model:
    """Make every ResMLP block of `model` lean, in place; returns `model`.

    What its linears keep is as `actprune.convert` made them: a plain one keeps a copy of its input.
    Parameters, their names and the state_dict stay. exact: keep GELU's input whole, not 2 bits of
    its derivative. Raises InputError where the model has no such block.
    """
    found = [module for module in model.modules() if type(module) in (Block, LeanBlock)]
    if not found:
        raise InputError("lean: expected a model with ResMLP blocks, got one without")
    for block in found:
        block.__class__ = LeanBlock
        assert isinstance(block, LeanBlock)
        block.exact = exact
    return model


def unlean(model: nn.Module) -> None:
    """Turn every lean block back into the one it was."""
    for module in model.modules():
        if isinstance(module, LeanBlock):
            del module.exact
            module.__class__ = Block  # type: ignore[assignment]
