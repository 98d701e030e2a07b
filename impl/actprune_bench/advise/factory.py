"""A model of one's own on the command line: an importable factory, and a batch for it."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from actprune.budget.peak import step_peak
from actprune_common.errors import InputError, expected

SHAPE = "a shape such as 4x3x224x224, or 4x128:int64 of token ids"
OPTIMIZER = partial(torch.optim.AdamW, fused=True)
"""Of every step that is predicted."""
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.bool),
    )
}


@dataclass(frozen=True)
class Given:
    """A model and what it takes."""

    model: nn.Module
    batch: Any

    @property
    def count(self) -> int:
        """Samples: the first size of the batch's first tensor. Raises InputError without any."""
        tensors = [leaf for leaf in tree_leaves(self.batch) if isinstance(leaf, Tensor)]
        if not (tensors and tensors[0].dim() and len(tensors[0])):
            raise InputError("batch: expected a tensor whose first size is the number of samples")
        return len(tensors[0])

    def peak(self, spec: str, count: int) -> int:
        """Return the predicted bytes at the peak of a step on `count` samples, AdamW's included."""
        own = self.count

        def sized(tensor: Tensor) -> Tensor:
            if not tensor.dim() or len(tensor) != own or count == own:
                return tensor
            return tensor[:1].expand(count, *tensor.shape[1:])  # no memory for those that are tried

        batch = tree_map_only(Tensor, sized, self.batch)
        return step_peak(self.model, batch, spec, optimizer=OPTIMIZER)


def is_factory(model: str) -> bool:
    """Whether a text names a factory, and no model of ours."""
    return ":" in model


def given(model: str, batch: str | None) -> Given:
    """Return what a factory makes, with a batch of a shape where that is said.

    Args:
        model: package.module:factory, to be found from the working directory too; called without
            arguments it returns a model, or a model and a batch.
        batch: SHAPE; else the factory's own.

    Raises:
        InputError: it cannot be imported or called, returns something else, or there is no batch.
    """
    made = _called(model)
    own = None
    if isinstance(made, tuple) and len(made) == 2:
        made, own = made
    if not isinstance(made, nn.Module):
        what = f"{model} to return a model, or a model and a batch"
        raise expected("model", what, type(made).__name__)
    if batch is not None:
        own = example(batch)
    if own is None:
        raise InputError(f"batch: expected {SHAPE}, for {model} returns a model alone")
    return Given(made, dict(own) if isinstance(own, Mapping) else own)


def example(text: str) -> Tensor:
    """Return random values of a SHAPE: normal ones, or integers 0 and 1. Raises InputError."""
    sizes, _, name = text.partition(":")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes) or (name or "float32") not in _DTYPES:
        raise expected("batch", f"{SHAPE}; of {', '.join(_DTYPES)}", repr(text))
    shape, dtype = [int(size) for size in sizes.split("x")], _DTYPES[name or "float32"]
    drawn = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=drawn).to(dtype)
    return torch.randint(2, shape, generator=drawn).to(dtype)


def images(batch: str | None) -> int:
    """Return the images in a batch of a model of ours. Raises InputError."""
    if batch is None or not batch.isdecimal() or not int(batch):
        raise expected("batch", "1 image or more", repr(batch))
    return int(batch)


def _called(text: str) -> Any:
    module, _, name = text.partition(":")
    factory: Callable[[], Any] | None
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        factory = getattr(import_module(module), name, None) if module and name else None
    except Exception as problem:
        raise InputError(f"model: {module!r} cannot be imported: {_said(problem)}") from problem
    finally:
        sys.path.remove(here)
    if not callable(factory):
        raise expected("model", "package.module:factory, a function without arguments", repr(text))
    try:
        return factory()
    except Exception as problem:
        raise InputError(f"model: {text} cannot be called: {_said(problem)}") from problem


def _said(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"
