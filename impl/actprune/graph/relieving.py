"""A lower peak of the backward pass: what lies idle there is freed, and made once more afterwards.

As Checkmate and DTR do it (arXiv 1910.02653, 2006.09616), here greedily on a schedule that stands.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from actprune.graph.costs import seconds
from actprune.graph.schedule import VALUE, Run, Storage
from actprune.graph.values import is_view, nbytes, tensors

_ROUNDS = 400
_LONGEST = 64
"""Operators by which a tensor is made once more, at most."""


@dataclass(frozen=True)
class _Idle:
    """A tensor that nobody uses between two places, with the peak between them."""

    root: fx.Node
    since: int
    until: int
    nbytes: int
    recipe: Sequence[fx.Node]
    """What makes it of tensors that are there at `until`, in order."""
    seconds: float


def relieve(first: Run, backward: fx.Graph, outputs: int, limit: int, allowed: float) -> float:
    """Lower the peak of a backward pass, in place, until it is at a limit or nothing is idle.

    Args:
        first: the forward pass.
        backward, outputs: as `schedule.timeline` takes them.
        limit: bytes alive that are low enough.
        allowed: seconds that it may take at most.

    Returns:
        The seconds that what is made once more takes.
    """
    low, spent = max(limit, max(first.alive, default=0)), 0.0
    for _ in range(_ROUNDS):
        run = first.then(backward, outputs)
        if max(run.alive, default=0) <= low:
            break
        found = [each for each in _idle(run) if spent + each.seconds <= allowed]
        found.sort(key=lambda each: each.nbytes / (each.seconds + 1e-6), reverse=True)
        best = next((each for each in found if not _rises(run, each)), None)
        if best is None:
            break
        spent += best.seconds - _again(run, best)
    return spent


def _idle(run: Run) -> list[_Idle]:
    """What is alive at the peak, unused there, and can be made once more when it is used next."""
    peak = run.peak
    alive = run.there(peak)
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
        recipe = _recipe(run, root, later)
        if recipe is not None:
            cost = sum(map(seconds, recipe))
            since = max((place for place in users if place < peak), default=run.order[root])
            found.append(_Idle(root, since, later, run.sizes[storage], recipe, cost))
    return found


def _recipe(run: Run, root: fx.Node, place: int) -> list[fx.Node] | None:
    """Return what makes a node of what is there at a place; None where that is too long."""
    wanted, stack = set[fx.Node](), _made_by(root)
    while stack:
        node = stack.pop()
        if node in wanted:
            continue
        if node.op == "placeholder" or len(wanted) == _LONGEST:
            return None  # what was kept, and is gone
        wanted.add(node)
        stack += [part for part in node.all_input_nodes if not _is_there(run, part, place)]
    return sorted(wanted, key=run.order.__getitem__)


def _rises(run: Run, idle: _Idle) -> bool:
    """Whether anything is above the peak then: what it is made of is held, and lies beside it."""
    most, made = max(run.alive), set(idle.recipe)
    given = {
        storage
        for node in idle.recipe
        for part in node.all_input_nodes
        if part not in made
        for storage in run.storages.get(part, ())
    }
    longer = [(run.last.get(storage, idle.until), run.sizes[storage]) for storage in given]
    beside = _most(idle.recipe) - idle.nbytes
    for place, alive in enumerate(run.alive):
        alive -= idle.nbytes * (idle.since < place < idle.until)
        alive += sum(size for last, size in longer if last < place <= idle.until)
        if alive + beside * (place == idle.until) > most:
            return True
    return False


def _most(recipe: Sequence[fx.Node]) -> int:
    """The bytes alive at most of what a recipe makes; views count as what they are views of."""
    bases: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    for place, node in enumerate(recipe):
        taken = node.target is operator.getitem or is_view(node)
        base = bases.get(node.args[0]) if taken else None  # type: ignore[arg-type]
        bases[node] = base or node
        for part in (node, *node.all_input_nodes):
            if part in bases:
                last[bases[part]] = place
    now, most, result = 0, 0, bases[recipe[-1]]
    for place, node in enumerate(recipe):
        now += sum(map(nbytes, tensors(node))) * (bases[node] is node)
        most = max(most, now)
        gone = (base for base, end in last.items() if end == place and base is not result)
        now -= sum(nbytes(part) for base in gone for part in tensors(base))
    return most


def _made_by(root: fx.Node) -> list[fx.Node]:
    """The operator that makes a tensor, and where that makes several the one that takes it out."""
    given = root.args[0] if root.target is operator.getitem else None
    return [given, root] if isinstance(given, fx.Node) else [root]


def _is_there(run: Run, node: fx.Node, place: int) -> bool:
    """Whether a node can be read at a place without being held for longer, or is small."""
    if node.op == "placeholder" and VALUE not in node.meta:
        return True  # a parameter, or a store, which is
    storages = run.storages.get(node, ())
    return bool(storages) and all(run.last.get(storage, -1) >= place for storage in storages)


def _again(run: Run, idle: _Idle) -> float:
    """Let those who use a tensor after the peak use another that is made then.

    Returns the seconds of what nobody needs any more before it.
    """
    before = run.nodes[idle.until]
    copies: dict[fx.Node, fx.Node] = {}
    views = {idle.root: None}
    for node in run.nodes[: idle.until]:
        if is_view(node) and node.args[0] in views:
            views[node] = None
    with before.graph.inserting_before(before):
        for node in dict.fromkeys((*idle.recipe, *views)):
            copies[node] = before.graph.node_copy(node, lambda part: copies.get(part, part))
    for node in views:
        for user in list(node.users):
            if user not in copies and run.order.get(user, -1) >= idle.until:
                user.replace_input_with(node, copies[node])
    saved = 0.0
    for node in reversed(dict.fromkeys((*idle.recipe, *views, *copies.values()))):
        if not node.users:
            saved += seconds(node) * (node in idle.recipe)
            node.graph.erase_node(node)
    return saved
