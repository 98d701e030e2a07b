"""Activation pruning for PyTorch: dense forward, compressed activations for the backward pass.

    import actprune
    model = actprune.apply(model)

and the rest of a training script stays as it is.
"""

from actprune import graph
from actprune.budget.allocate import Allocation, allocate
from actprune.budget.profile import Profile, profile
from actprune.formats import FORMATS, Compressed, Format, parse
from actprune.inspect.fidelity import LayerFidelity, fidelity
from actprune.inspect.memory import saved_bytes
from actprune.inspect.survey import Survey, survey
from actprune.layers import ops
from actprune.layers.convert import convert, pruned, redraw, revert, weigh
from actprune.layers.linear import PrunedLinear
from actprune.layers.sharding import shard
from actprune.strategies import STRATEGIES
from actprune.strategies.grammar import RECOMMENDED, Plan, apply, read, undo
from actprune.strategies.lean import chains, lean, unlean
from actprune_common.errors import InputError
from actprune_common.sizes import parse_bytes

__version__ = "0.1.0"
__all__ = [
    "FORMATS",
    "RECOMMENDED",
    "STRATEGIES",
    "Allocation",
    "Compressed",
    "Format",
    "InputError",
    "LayerFidelity",
    "Plan",
    "Profile",
    "PrunedLinear",
    "Survey",
    "allocate",
    "apply",
    "chains",
    "convert",
    "fidelity",
    "graph",
    "lean",
    "ops",
    "parse",
    "parse_bytes",
    "profile",
    "pruned",
    "read",
    "redraw",
    "revert",
    "saved_bytes",
    "shard",
    "survey",
    "undo",
    "unlean",
    "weigh",
]
