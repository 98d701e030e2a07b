"""How many bytes are alive after each operator of the two passes, by their graphs alone."""

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, fx

from actprune.graph.values import is_view, nbytes

Storage = tuple[str, int]
"""The name of the operator that made it, and the place among its results."""


VALUE, STORE = "actprune_value", "actprune_store"
"""In the meta of a node of a planned graph: the name of the value that it gives, or is a store of.
"""


@dataclass(frozen=True)
class Moment:
    """What is alive at the peak of the backward pass.

    Args:
        live: Values that are there, decoded or computed again or still kept.
        idle: Those of them that the operator at the peak does not read.
        pending: Values that are there later.
        others: Bytes alive beside `live` and what is held of `pending`.
    """

    live: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    others: int = 0


@dataclass(frozen=True)
class Timeline:
    """Bytes alive beside parameters, buffers and the inputs of the model; of its outputs nobody
    knows what becomes of them: they count in the forward pass alone."""

    forward: tuple[int, ...]
    """After each operator of the forward pass."""
    backward: tuple[int, ...]
    held: int
    """Between the two: what the forward pass keeps for the backward pass."""
    moment: Moment = Moment()
    """At the peak of the backward pass."""

    @property
    def peak(self) -> int:
        """The most."""
        return max(self.forward + self.backward, default=0)


def timeline(forward: fx.Graph, backward: fx.Graph, outputs: int) -> Timeline:
    """Return what is alive while the graphs run node by node, each tensor freed after its last use.

    outputs: how many of the forward graph's are the model's; the others are for `backward`, whose
    inputs have their names.
    """
    first = Run(forward, {node.name: () for node in forward.find_nodes(op="placeholder")})
    second = first.then(backward, outputs)
    kept = {storage for part in first.results[outputs:] for storage in first.storages[part]}
    held = sum(first.sizes[storage] for storage in kept)
    before, after = first.alive(first.kept()), second.alive(second.kept())
    return Timeline(tuple(before), tuple(after), held, second.moment())


class Run:
    """The storages of a graph that runs.

    given: of each input that is known, its storages; another is new, as what the backward pass
    starts from is.
    """

    def __init__(
        self,
        graph: fx.Graph,
        given: Mapping[str, Collection[Storage]],
        sizes: Mapping[Storage, int] = {},
    ) -> None:
        self.nodes = list(graph.nodes)
        self.order = {node: place for place, node in enumerate(self.nodes)}
        self.peak: tuple[int, frozenset[Storage]] = (0, frozenset())
        """The place of the operator at the peak, and what is alive there."""
        self.last: dict[Storage, int] = {}
        """The place of the operator that uses a storage last."""
        self.sizes = dict(sizes)
        self.storages: dict[fx.Node, tuple[Storage, ...]] = {}
        for node in self.nodes:
            if node.op == "placeholder" and node.name in given:
                self.storages[node] = tuple(given[node.name])
            elif node.op != "output":
                self.storages[node] = self._of(node)
        (output,) = graph.find_nodes(op="output")
        parts = output.args[0]
        self.results = [part for part in parts if isinstance(part, fx.Node)]

    def _of(self, node: fx.Node) -> tuple[Storage, ...]:
        base = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if base is not None and is_view(node):
            return self.storages[base]
        if base is not None and node.target is operator.getitem:
            return tuple(s for s in self.storages[base] if s[1] == node.args[1])
        found = []
        made = node.meta.get("val")
        for place, part in enumerate(made if isinstance(made, list | tuple) else (made,)):
            if not isinstance(part, Tensor):
                continue  # a gradient that nobody asked for
            storage = node.name, place
            self.sizes[storage] = nbytes(part)
            found.append(storage)
        return tuple(found)

    def then(self, backward: fx.Graph, outputs: int) -> "Run":
        """Return the backward pass, which runs with what this one keeps beside its outputs."""
        saved = {part.name: self.storages[part] for part in self.results[outputs:]}
        kept = {storage for storages in saved.values() for storage in storages}
        return Run(backward, saved, {storage: self.sizes[storage] for storage in kept})

    def kept(self) -> set[Storage]:
        """Return what the results hold."""
        return {storage for part in self.results for storage in self.storages[part]}

    def alive(self, keep: Collection[Storage]) -> list[int]:
        """Return the bytes alive after each operator, before what it used last is freed."""
        last = self.last = {}
        for place, node in enumerate(self.nodes):
            for used in (node, *node.all_input_nodes):
                last.update(dict.fromkeys(self.storages.get(used, ()), place))
        gone: dict[int, list[Storage]] = {}
        for storage, place in last.items():
            if storage not in keep:
                gone.setdefault(place, []).append(storage)
        inputs = (node for node in self.nodes if node.op == "placeholder")
        given = {storage for node in inputs for storage in self.storages[node]}
        made = {storage for storage in self.sizes if storage not in last or storage in given}
        now, found, most = sum(self.sizes[s] for s in made), [], -1
        alive = {storage for storage in made if self.sizes[storage]}
        for place, node in enumerate(self.nodes):
            for storage in self.storages.get(node, ()):
                if storage not in made:
                    made.add(storage)
                    alive.add(storage)
                    now += self.sizes[storage]
            if node.op == "call_function":
                found.append(now)
                if now > most:
                    most, self.peak = now, (place, frozenset(alive))
            for storage in gone.get(place, ()):
                now -= self.sizes[storage]
                alive.discard(storage)
        return found

    def moment(self) -> Moment:
        """Return what is alive at the peak that `alive` found."""
        place, alive = self.peak
        live: set[str] = set()
        pending: set[str] = set()
        busy: set[str] = set()
        counted: set[Storage] = set()
        reads = (self.nodes[place], *self.nodes[place].all_input_nodes) if self.nodes else ()
        at_work = {storage for node in reads for storage in self.storages.get(node, ())}
        for node, storages in self.storages.items():
            value, store = node.meta.get(VALUE), node.meta.get(STORE)
            there = alive.intersection(storages)
            if store is not None and there:
                pending.add(store)
                counted |= there
            elif value is not None and there:
                counted |= there
                used = node.op != "placeholder" or any(self.order[u] <= place for u in node.users)
                (live if used else pending).add(value)
                if at_work.intersection(storages):
                    busy.add(value)
            elif value is not None and self.order[node] > place:
                pending.add(value)
        others = sum(self.sizes[storage] for storage in alive - counted)
        return Moment(frozenset(live), frozenset(live - busy), frozenset(pending - live), others)
