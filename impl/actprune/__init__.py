"""Activation pruning for PyTorch: dense forward, compressed activations for the backward pass.

    import actprune
    model = actprune.convert(model, "bsr:block=1x32,sparsity=0.9,select=priority")

and the rest of a training script stays as it is.
"""

from actprune.budget.allocate import Allocation, allocate
from actprune.formats import FORMATS, Compressed, Format, parse
from actprune.inspect.memory import saved_bytes
from actprune.layers import ops
from actprune.layers.convert import (
    convert,
    draws,
    pruned,
    revert,
    set_draws,
    set_rank,
    survey,
    weigh,
)
from actprune.layers.linear import PrunedLinear
from actprune_common.errors import InputError

__version__ = "0.1.0"
__all__ = [
    "FORMATS",
    "Allocation",
    "Compressed",
    "Format",
    "InputError",
    "PrunedLinear",
    "allocate",
    "convert",
    "draws",
    "ops",
    "parse",
    "pruned",
    "revert",
    "saved_bytes",
    "set_draws",
    "set_rank",
    "survey",
    "weigh",
]
