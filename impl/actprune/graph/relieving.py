"""A lower peak of the backward pass: what lies idle there is freed, and made once more afterwards.

As Checkmate and DTR do it (arXiv 1910.02653, 2006.09616), here greedily on a schedule that stands.
"""

import operator
from dataclasses import dataclass

from torch import fx

from actprune.graph.costs import seconds
from actprune.graph.schedule import VALUE, Run, Storage
from actprune.graph.values import is_view, nbytes, tensors

_ROUNDS = 200


@dataclass(frozen=True)
class _Idle:
    """A tensor that nobody uses between two places, with the peak between them."""

    root: fx.Node
    since: int
    until: int
    nbytes: int
    seconds: float


def relieve(
    forward: fx.Graph, backward: fx.Graph, outputs: int, limit: int, allowed: float
) -> float:
    """Lower the peak of a backward pass, in place, until it is at a limit or nothing is idle.

    Args:
        forward, backward, outputs: as `schedule.timeline` takes them.
        limit: bytes alive that are low enough.
        allowed: seconds that it may take at most.

    Returns:
        The seconds that what is made once more takes.
    """
    first = Run(forward, {node.name: () for node in forward.find_nodes(op="placeholder")})
    low, spent = max(limit, max(first.alive(first.kept()), default=0)), 0.0
    for _ in range(_ROUNDS):
        run = first.then(backward, outputs)
        timeline = run.alive(run.kept())
        if max(timeline, default=0) <= low:
            break
        found = [each for each in _idle(run) if spent + each.seconds <= allowed]
        found.sort(key=lambda each: each.nbytes / (each.seconds + 1e-6), reverse=True)
        best = next((each for each in found if not _rises(run, each, timeline)), None)
        if best is None:
            break
        _again(run, best)
        spent += best.seconds
    return spent


def _idle(run: Run) -> list[_Idle]:
    """What is alive at the peak, unused there, and can be made once more when it is used next."""
    peak, alive = run.peak
    groups: dict[Storage, list[fx.Node]] = {}
    for node in run.nodes:
        storages = run.storages.get(node, ())
        if len(storages) == 1 and storages[0] in alive:
            groups.setdefault(storages[0], []).append(node)
    found = []
    for storage, nodes in groups.items():
        root = nodes[0]
        if root.op != "call_function" or VALUE not in root.meta or run.order[root] >= peak:
            continue
        users = {run.order[u] for node in nodes for u in node.users if not is_view(u)}
        later = min((place for place in users if place > peak), default=None)
        if peak in users or later is None:
            continue
        if all(_is_there(run, part, later) for part in _made_by(root)[0].all_input_nodes):
            cost = seconds(_made_by(root)[0])
            since = max((place for place in users if place < peak), default=run.order[root])
            found.append(_Idle(root, since, later, run.sizes[storage], cost))
    return found


def _rises(run: Run, idle: _Idle, timeline: list[int]) -> bool:
    """Whether anything is above the peak then: inputs are held longer, other results come along."""
    made, most = _made_by(idle.root)[0], max(timeline)
    given = {storage for node in made.all_input_nodes for storage in run.storages.get(node, ())}
    longer = [(run.last.get(storage, idle.until), run.sizes[storage]) for storage in given]
    others = sum(nbytes(part) for part in tensors(made)) - idle.nbytes
    places = (place for place, node in enumerate(run.nodes) if node.op == "call_function")
    for place, alive in zip(places, timeline, strict=True):
        alive -= idle.nbytes * (idle.since < place < idle.until)
        alive += sum(size for last, size in longer if last < place <= idle.until)
        if alive + others * (place == idle.until) > most:
            return True
    return False


def _made_by(root: fx.Node) -> list[fx.Node]:
    """The operator that makes a tensor, and where that makes several the one that takes it out."""
    given = root.args[0] if root.target is operator.getitem else None
    return [given, root] if isinstance(given, fx.Node) else [root]


def _is_there(run: Run, node: fx.Node, place: int) -> bool:
    """Whether a node can be read at a place without being held for longer, or is small."""
    if node.op == "placeholder" and VALUE not in node.meta:
        return True  # a parameter, or a store, which is
    return all(run.last.get(storage, -1) >= place for storage in run.storages.get(node, ()))


def _again(run: Run, idle: _Idle) -> None:
    """Let those who use a tensor after the peak use another that is made then."""
    before = run.nodes[idle.until]
    copies: dict[fx.Node, fx.Node] = {}
    for node in run.nodes[: idle.until]:
        if node in _made_by(idle.root) or (is_view(node) and node.args[0] in copies):
            with before.graph.inserting_before(before):
                copies[node] = before.graph.node_copy(node, lambda part: copies.get(part, part))
    for node, copy in copies.items():
        for user in list(node.users):
            if user not in copies and run.order.get(user, -1) >= idle.until:
                user.replace_input_with(node, copy)
    for node in (*reversed(copies), *reversed(copies.values())):
        if not node.users:
            node.graph.erase_node(node)
