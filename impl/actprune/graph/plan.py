"""What of each tensor is kept between the two graphs: printed, saved, read, compared."""

from dataclasses import dataclass, field

KEEP, RECOMPUTE, ABSENT, OFFLOAD = "keep", "recompute", "-", "offload"
"""Choices beside the specs of stores: ABSENT is a tensor that the backward pass does without."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the forward pass that the backward pass needs, or computes others from."""

    name: str
    """Of the node in the graph."""
    module: str
    """The module that made it, such as blocks.0.mlp.fc1."""
    producer: str
    """The operator that made it, such as aten.addmm.default."""
    kinds: tuple[str, ...]
    """What the backward pass needs it for (saved.operators.KINDS); none where only for others."""
    nbytes: int
    """Of the tensor."""
    choice: str
    held: int
    """What is held of it between the passes."""
    seconds: float
    """What the choice costs, as predicted."""
    error: float
    """What it adds to ‖ĝ - g‖² / ‖g‖², as predicted."""


@dataclass(frozen=True)
class GraphPlan:
    """The plan of one graph."""

    key: str
    """A digest of the graph's operators: the same for another batch size."""
    entries: tuple[Entry, ...]
    budget: int | None
    """Bytes that may be held; None: no limit."""
    dense: int
    """Bytes that torch's own partitioner keeps."""
    held: int
    dense_peak: int
    """Predicted bytes alive at the most in both passes, beside parameters and inputs."""
    peak: int
    gap: float
    """How much faster the best plan could be at most, as a share."""
    timeline: tuple[int, ...] = field(default=(), repr=False)
    """Bytes alive after each operator of the two passes, as predicted."""
    dense_timeline: tuple[int, ...] = field(default=(), repr=False)
    forward: int = 0
    """How many of the timeline's are the forward pass's."""
    dense_forward: int = 0

    @property
    def seconds(self) -> float:
        """What the choices cost, as predicted."""
        return sum(entry.seconds for entry in self.entries)

    @property
    def error(self) -> float:
        """‖ĝ - g‖ / ‖g‖ of the gradients, as predicted."""
        return sum(entry.error for entry in self.entries) ** 0.5


@dataclass(frozen=True)
class Plan:
    """The plans of the graphs that a model was compiled to, in the order of their compilation."""

    graphs: tuple[GraphPlan, ...] = ()
