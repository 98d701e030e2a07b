"""recompute: products, too, are run again where their operands are kept."""

from dataclasses import dataclass

from actprune.strategies.base import Strategy


@dataclass(frozen=True)
class Recompute(Strategy):
    """Beside rules with @: what a product gives is computed again from its operands' stores."""

    name: str = "recompute"
