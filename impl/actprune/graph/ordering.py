"""A backward pass in which weight gradients are computed as early as they can be."""

import operator

from torch import fx

from actprune.graph.schedule import VALUE
from actprune.graph.values import is_view


def early(graph: fx.Graph) -> None:
    """Move each operator that makes a result, in place, to where its gradients are there.

    Autograd computes the gradient of a product's input first. Beside it the factor of the weight's
    gradient then lies in memory, decoded or computed again, which nobody else may need any more.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    (output,) = graph.find_nodes(op="output")
    results = [part for part in output.args[0] if isinstance(part, fx.Node)]
    found: dict[fx.Node, fx.Node] = {}
    """By such an operator, the last of its gradients."""
    for node in map(_maker, results):
        inputs = [_maker(part) for part in _product(node).all_input_nodes]
        grads = [part for part in inputs if VALUE not in part.meta and _is_gradient(part)]
        if node.op == "call_function" and grads and any(VALUE in part.meta for part in inputs):
            found[node] = max(grads, key=order.__getitem__)
    start = graph.find_nodes(op="placeholder")[-1:]
    for node, last in sorted(found.items(), key=lambda each: order[each[1]]):
        place = {each: place for place, each in enumerate(graph.nodes)}
        wanted, stack = set[fx.Node](), [node]
        while stack:
            part = stack.pop()
            late = part.op == "call_function" and place[part] > place[last]
            if late and part not in wanted:
                wanted.add(part)
                stack += part.all_input_nodes
        after = start[0] if last.op == "placeholder" else last
        for part in sorted(wanted, key=place.__getitem__, reverse=True):
            after.append(part)


def _is_gradient(node: fx.Node) -> bool:
    """Whether a node that is no value is a gradient, and not a parameter or a store."""
    return node.op == "call_function" or "tangents" in str(node.target)


def _maker(node: fx.Node) -> fx.Node:
    """The operator that made what a node is a view of."""
    while is_view(node) or node.target is operator.getitem:
        node = node.args[0]  # type: ignore[assignment]
    return node


def _product(node: fx.Node) -> fx.Node:
    """What a sum is of, that nobody else reads, such as a scale's gradient; else the node."""
    given = [_maker(part) for part in node.all_input_nodes]
    return given[0] if len(given) == 1 and len(given[0].users) == 1 else node
