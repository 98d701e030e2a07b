"""How many bytes are alive after each operator of the two passes, by their graphs alone."""

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor, fx

from actprune.graph.reusing import overwritten
from actprune.graph.scratch import scratch
from actprune.graph.values import PASSED, is_view, nbytes

Storage = tuple[str, int]
"""The name of the operator that made it, and the place among its results."""


_NEARLY, _MOMENTS = 0.85, 24
"""The share of a peak from which on a moment is nearly one, and how many of them count."""
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

    @property
    def peak(self) -> int:
        """The most."""
        return max(self.forward + self.backward, default=0)


def timeline(
    forward: fx.Graph, backward: fx.Graph, outputs: int, *, reuse: bool = False
) -> Timeline:
    """Return what is alive while the graphs run node by node, each tensor freed after its last use.

    Args:
        forward, backward: the two passes.
        outputs: how many results of the forward graph are the model's; the others are for
            `backward`, whose inputs have their names.
        reuse: whether operators write into what they read last, where they can.
    """
    return timeline_of(*runs(forward, backward, outputs, reuse=reuse), outputs)


def timeline_of(first: "Run", second: "Run", outputs: int) -> Timeline:
    """Return what is alive while two passes run; `outputs` as `timeline` takes it."""
    kept = {storage for part in first.results[outputs:] for storage in first.storages[part]}
    held = sum(first.sizes[storage] for storage in kept)
    return Timeline(first.steps(), second.steps(), held)


def runs(
    forward: fx.Graph, backward: fx.Graph, outputs: int, *, reuse: bool = False
) -> tuple["Run", "Run"]:
    """Return the two passes as they run; the arguments are those of `timeline`."""
    inputs = forward.find_nodes(op="placeholder")
    given = {node.name: () for node in inputs if PASSED not in node.meta}
    first = Run(forward, given, reuse=reuse)
    return first, first.then(backward, outputs)


class Run:
    """The storages of a graph that runs.

    Args:
        graph: of one pass.
        given: of each input that is known, its storages; another is new, as what the backward pass
            starts from is.
        sizes: of the storages that are given.
        reuse: whether operators write into what they read last, where they can.
    """

    def __init__(
        self,
        graph: fx.Graph,
        given: Mapping[str, Collection[Storage]],
        sizes: Mapping[Storage, int] = {},
        *,
        reuse: bool = False,
    ) -> None:
        self.nodes = list(graph.nodes)
        self.order = {node: place for place, node in enumerate(self.nodes)}
        self.reuse = reuse
        self.scratch = [scratch(node) if node.op == "call_function" else 0 for node in self.nodes]
        """What each operator has in memory for itself."""
        self.sizes = dict(sizes)
        self.storages: dict[fx.Node, tuple[Storage, ...]] = {}
        lent: set[Storage] = set()
        for node in self.nodes:
            if node.op == "placeholder" and node.name in given:
                self.storages[node] = tuple(given[node.name])
            elif node.op != "output":
                self.storages[node] = self._of(node)
            if PASSED in node.meta and node.name not in given:
                lent.update(self.storages[node])
        (output,) = graph.find_nodes(op="output")
        parts = output.args[0]
        self.results = [part for part in parts if isinstance(part, fx.Node)]
        self.kept = {storage for part in self.results for storage in self.storages[part]}
        """What the results hold."""
        inputs = (node for node in self.nodes if node.op == "placeholder")
        self.given = {storage for node in inputs for storage in self.storages[node]}
        self.last: dict[Storage, int] = {}
        """The place of the last operator that uses a storage."""
        self.until: dict[Storage, int] = {}
        """The last place at which it is in memory: results stay, and what is written over is gone
        before the operator that does so."""
        self.since: dict[Storage, int] = dict.fromkeys(self.given, 0)
        self._uses(lent)
        self.alive = self._alive()
        """The bytes alive at each node, before what it used last is freed."""

    def steps(self) -> tuple[int, ...]:
        """Return the bytes alive after each operator."""
        pairs = zip(self.nodes, self.alive, strict=True)
        return tuple(alive for node, alive in pairs if node.op == "call_function")

    def _uses(self, lent: Collection[Storage]) -> None:
        """Fill in when a storage is there; the caller has what it lends to the end."""
        for place, node in enumerate(self.nodes):
            for used in (node, *node.all_input_nodes):
                for storage in self.storages.get(used, ()):
                    self.last[storage] = place
                    self.since.setdefault(storage, place)
        self.until = self.last | dict.fromkeys((*self.kept, *lent), len(self.nodes))
        for storage in self.sizes:  # what the other pass makes and this one never reads
            self.until.setdefault(storage, len(self.nodes))
            self.since.setdefault(storage, 0)
        if self.reuse:
            for place, node in enumerate(self.nodes):
                part = overwritten(self, node)
                if part is not None:
                    self.until[self.storages[part][0]] = place - 1

    def _alive(self) -> list[int]:
        steps = [0] * (len(self.nodes) + 2)
        for storage, size in self.sizes.items():
            steps[self.since[storage]] += size
            steps[self.until[storage] + 1] -= size
        return [now + beside for now, beside in zip(accumulate(steps), self.scratch, strict=False)]

    def there(self, place: int) -> set[Storage]:
        """Return what is in memory when the operator at a place has run."""
        return {s for s in self.sizes if self.since[s] <= place <= self.until[s]}

    @property
    def peak(self) -> int:
        """The place of the operator after which the most is alive."""
        return max(range(len(self.nodes)), key=self.alive.__getitem__, default=0)

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
        sizes = {storage: self.sizes[storage] for storage in kept}
        return Run(backward, saved, sizes, reuse=self.reuse)

    def moments(self) -> tuple[Moment, ...]:
        """Return what is alive at the peak, and where else there is nearly as much, highest first.

        A place counts where its neighbours have less.
        """
        alive = [0, *self.alive, 0]
        least = _NEARLY * max(alive)
        tops = [
            place
            for place, now in enumerate(self.alive)
            if now >= least and alive[place] <= now >= alive[place + 2]
        ]
        found: dict[Moment, None] = {}
        for place in sorted(tops, key=self.alive.__getitem__, reverse=True):
            if len(found) == _MOMENTS:
                break
            found[self.moment(place)] = None
        return tuple(found)

    def moment(self, place: int) -> Moment:
        """Return what is alive after the operator at a place."""
        alive, node = self.there(place), self.nodes[place]
        live: set[str] = set()
        pending: set[str] = set()
        busy: set[str] = set()
        counted: set[Storage] = set()
        at_work = {s for each in (node, *node.all_input_nodes) for s in self.storages.get(each, ())}
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
        others = self.scratch[place] + sum(self.sizes[each] for each in alive - counted)
        return Moment(frozenset(live), frozenset(live - busy), frozenset(pending - live), others)
