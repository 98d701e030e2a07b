"""What of each tensor is kept between the two graphs: printed, saved, read, compared."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actprune.graph.cells import EMPTY, aligned, cell
from actprune_common.files import write_whole
from actprune_common.printable import visible

KEEP, RECOMPUTE, ABSENT, OFFLOAD = "keep", "recompute", "-", "offload"
"""Choices beside the specs of stores: ABSENT is a tensor that the backward pass does without."""
BITS, NARROW = "bits", "narrow"
"""Stores that lose nothing: of booleans, and of the indices of max-pooling."""
WAYS = (KEEP, RECOMPUTE, OFFLOAD, BITS, NARROW, ABSENT)
"""Choices that are no format."""
VERSION = "1"
TITLE = ("actprune", "graph", "plan")
"""Words of a saved plan's first line, before the version."""
FIELDS: dict[str, type] = {
    **dict.fromkeys(("budget", "dense", "held", "dense_peak", "peak"), int),
    "gap": float,
}
"""What a saved plan says of a graph, in order, as GraphPlan names it."""
COLUMNS: dict[str, tuple[str, type]] = {
    "tensor": ("name", str),
    "choice": ("choice", str),
    "bytes": ("nbytes", int),
    "held": ("held", int),
    "seconds": ("seconds", float),
    "error": ("error", float),
    "for": ("kinds", tuple),
    "producer": ("producer", str),
    "module": ("module", str),
}
"""What a saved plan says of a tensor, in order, by heading: as Entry names it."""
_HELP = """\
# A tensor's name and choice are what is read; the rest informs. A choice is keep, recompute,
# offload, bits or narrow (exactly, in less), a store such as codes:bits=4, or - where the
# backward pass does without.
"""
_WIDTH = 12
"""Of a column of a saved plan, at least: another choice changes no line but its own."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the forward pass that the backward pass needs, or computes others from.

    Example:
        >>> from actprune.graph import Entry
        >>> Entry("mm", "fc1", "aten.mm.default", ("linear",), 4096, "keep", 4096, 0.0, 0.0).choice
        'keep'
    """

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
    """The plan of one graph.

    `str` of it is a line for the graph, and a table in which the same tensor of the blocks of a
    list is one line.

    Example:
        >>> from actprune.graph import GraphPlan
        >>> print(GraphPlan("8c1f", (), None, 4 << 20, 1 << 20, 6 << 20, 3 << 20, 0.0).summary)
        4.00 -> 1.00 MiB held (0.250), peak 6.00 -> 3.00, 0 ms, error 0.000, gap 0.000
    """

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
        return math.sqrt(sum(entry.error for entry in self.entries))

    def __str__(self) -> str:
        """What the graph keeps, as a table."""
        return "\n".join([f"graph {visible(self.key)}: {self.summary}", *self._table()])

    @property
    def summary(self) -> str:
        """Bytes held and alive at the peak, dense and planned, with their price, on one line."""
        budget = "" if self.budget is None else f", budget {mib(self.budget)}"
        return (
            f"{mib(self.dense)} -> {mib(self.held)} MiB held ({share(self.held, self.dense)}"
            f"{budget}), peak {mib(self.dense_peak)} -> {mib(self.peak)}, "
            f"{self.seconds * 1e3:.3g} ms, error {self.error:.3f}, gap {self.gap:.3f}"
        )

    def _table(self) -> list[str]:
        lines: dict[tuple[str, ...], list[float]] = {}
        for each in self.entries:
            module = ".".join("*" if part.isdigit() else part for part in each.module.split("."))
            names = (module or "(model)", each.producer, " ".join(each.kinds), each.choice)
            known = lines.setdefault(names, [0.0] * 5)
            more = (1, each.nbytes, each.held, each.seconds, each.error)
            known[:] = map(sum, zip(known, more, strict=True))
        rows = [("module", "producer", "for", "choice", "count", "MiB", "held", "ms", "error")]
        for key, (count, nbytes, held, seconds, error) in lines.items():
            module, producer, kinds, choice = map(visible, key)
            sizes = f"{count:.0f}", mib(nbytes), mib(held)
            price = f"{seconds * 1e3:.3f}", f"{math.sqrt(error):.3f}"
            rows.append((module, producer, kinds, choice, *sizes, *price))
        return aligned(rows, right=range(4, 9))


@dataclass(frozen=True)
class Plan:
    """The plans of the graphs that a model was compiled to, in the order of their compilation.

    No two have the same key. `load` reads what `save` wrote, edited or not.

    Example:
        >>> from actprune.graph import Entry, GraphPlan, Plan
        >>> entry = Entry("addmm", "fc1", "aten.addmm.default", (), 4 << 20, "keep", 4 << 20, 0, 0)
        >>> plan = Plan((GraphPlan("8c1f", (entry,), None, 4 << 20, 4 << 20, 6 << 20, 6 << 20, 0),))
        >>> print(plan)
        graph 8c1f: 4.00 -> 4.00 MiB held (1.000), peak 6.00 -> 6.00, 0 ms, error 0.000, gap 0.000
        module  producer            for  choice  count   MiB  held     ms  error
        fc1     aten.addmm.default       keep        1  4.00  4.00  0.000  0.000
    """

    graphs: tuple[GraphPlan, ...] = ()

    @property
    def dense(self) -> int:
        """Bytes that torch's own partitioner keeps."""
        return sum(graph.dense for graph in self.graphs)

    @property
    def held(self) -> int:
        """Bytes that are held instead."""
        return sum(graph.held for graph in self.graphs)

    @property
    def seconds(self) -> float:
        """What the choices cost, as predicted."""
        return sum(graph.seconds for graph in self.graphs)

    def __str__(self) -> str:
        """A table for each graph, and what all hold."""
        if len(self.graphs) < 2:
            return "\n".join(map(str, self.graphs)) or "no graphs"
        held = f"{mib(self.dense)} -> {mib(self.held)} MiB held ({share(self.held, self.dense)})"
        total = f"{len(self.graphs)} graphs: {held}, {self.seconds * 1e3:.3g} ms"
        return "\n\n".join([*map(str, self.graphs), total])

    def text(self) -> str:
        """Return all but the timelines as a text to edit; `parse_plan` reads it back."""
        parts = [f"{' '.join(TITLE)} {VERSION}\n{_HELP}"]
        for graph in self.graphs:
            facts = [("graph", cell(graph.key))]
            facts += [(name, _cell(getattr(graph, name), kind)) for name, kind in FIELDS.items()]
            rows = [tuple(COLUMNS), *map(_row, graph.entries)]
            numbers = [i for i, (_, kind) in enumerate(COLUMNS.values()) if kind in (int, float)]
            table = aligned(rows, right=numbers, least=_WIDTH)
            parts.append("\n".join([*aligned(facts, right=()), "", *table]) + "\n")
        return "\n".join(parts)

    def save(self, path: str | Path) -> None:
        """Write `text` to a file, whole or not at all. Raises InputError where that fails."""
        write_whole(Path(path), self.text())

    def compare(self, other: "Plan") -> str:
        """Return what another plan does otherwise: graphs, tensors with their bytes, totals.

        Example:
            >>> plan = Plan((GraphPlan("8c1f", (), None, 4 << 20, 4 << 20, 6 << 20, 6 << 20, 0),))
            >>> print(plan.compare(Plan()))
            graph 8c1f: in the first plan alone (4.00 MiB held)
            all: 4.00 -> 0.00 MiB held, 0 -> 0 ms, choices of 0 tensors changed
        """
        ours = {graph.key: graph for graph in self.graphs}
        theirs = {graph.key: graph for graph in other.graphs}
        lines, changed = [], 0
        for key in dict.fromkeys([*ours, *theirs]):
            before, after = ours.get(key), theirs.get(key)
            told = f"graph {visible(key)}: "
            if before and after:
                rows = _changes(before, after)
                changed += len(rows)
                told += f"{mib(before.held)} -> {mib(after.held)} MiB held, "
                told += f"peak {mib(before.peak)} -> {mib(after.peak)}, "
                told += f"{before.seconds * 1e3:.3g} -> {after.seconds * 1e3:.3g} ms, "
                told += f"error {before.error:.3f} -> {after.error:.3f}"
                heading = "tensor", "module", "choice", "MiB held"
                lines += [told, *(aligned([heading, *rows], right=()) if rows else ["no changes"])]
            elif before:
                lines.append(f"{told}in the first plan alone ({mib(before.held)} MiB held)")
            elif after:
                lines.append(f"{told}in the second plan alone ({mib(after.held)} MiB held)")
        held = f"{mib(self.held)} -> {mib(other.held)} MiB held"
        took = f"{self.seconds * 1e3:.3g} -> {other.seconds * 1e3:.3g} ms"
        count = f"choices of {changed} tensor{'s' * (changed != 1)} changed"
        return "\n".join([*lines, f"all: {held}, {took}, {count}"])


def mib(nbytes: float) -> str:
    """Bytes in MiB, as tables show them."""
    return f"{nbytes / 2**20:.2f}"


def share(part: float, whole: float) -> str:
    """A part of a whole, as tables show it."""
    return f"{part / whole:.3f}" if whole else "-"


def _row(entry: Entry) -> tuple[str, ...]:
    """A tensor's line of a saved plan."""
    values = {name: (getattr(entry, name), kind) for name, kind in COLUMNS.values()}
    return tuple(
        entry.choice if name == "choice" else _cell(value, kind)
        for name, (value, kind) in values.items()
    )


def _cell(value: Any, kind: type) -> str:
    if value is None:
        return EMPTY
    if kind in (int, float):
        return repr(kind(value))  # of NumPy's numbers too
    return cell(",".join(value) if kind is tuple else value)


def _changes(before: GraphPlan, after: GraphPlan) -> list[tuple[str, ...]]:
    """A row for each tensor whose choice two plans of a graph differ in, or that one lacks."""
    ours = {entry.name: entry for entry in before.entries}
    theirs = {entry.name: entry for entry in after.entries}
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        sides = ours.get(name), theirs.get(name)
        known = next(side for side in sides if side)
        was, now = ((side.choice, mib(side.held)) if side else ("none", "none") for side in sides)
        if was[0] != now[0]:
            row = name, known.module or "(model)", f"{was[0]} -> {now[0]}", f"{was[1]} -> {now[1]}"
            rows.append(tuple(map(visible, row)))
    return rows
