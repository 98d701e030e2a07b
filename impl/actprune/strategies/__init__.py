"""What is done to a model beside its formats, one module a strategy, and the text for both."""

from actprune.strategies.autocast import Bfloat16
from actprune.strategies.base import Strategy
from actprune.strategies.checkpoint import Checkpoint, Selective
from actprune.strategies.compile import Compile
from actprune.strategies.lean.strategy import Lean
from actprune.strategies.offload import Offload
from actprune.strategies.recompute import Recompute
from actprune.strategies.weighted import Weighted

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Compile(),
        Weighted(),
        Bfloat16(),
        Offload(),
        Recompute(),
        Checkpoint(),
        Selective(),
        Lean("lean", gelu=2),
        Lean("lean-4bit", gelu=4),
        Lean("lean-exact", gelu=None),
    )
}
"""Every strategy by its name, in the order of a plan's text: the outermost first."""
