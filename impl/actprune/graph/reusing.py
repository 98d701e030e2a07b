"""Elementwise operators that write into what they read last, as inductor's code does by itself.

A pass that runs operator by operator else has both in memory at once.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from actprune.graph.values import hint, nbytes

if TYPE_CHECKING:
    from actprune.graph.schedule import Run

_aten: Any = torch.ops.aten
_INTO = "grad_input"
"""What the result of a backward operator is called, where one is given."""
_SYMMETRIC = (_aten.add.Tensor, _aten.mul.Tensor)


def into(node: fx.Node) -> Any:
    """Return the operator that computes the same and writes it into the first argument, or None."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return None
    if target.namespace != "aten" or torch.Tag.pointwise not in target.tags:
        return None
    name = target._schema.name.partition("::")[2]
    if name.endswith("_backward"):
        return getattr(getattr(_aten, name), _INTO, None)
    return getattr(getattr(_aten, f"{name}_", None), target._overloadname, None)


def overwritten(run: "Run", node: fx.Node) -> fx.Node | None:
    """Return the argument whose storage an operator may write to: nobody reads it afterwards."""
    if into(node) is None:
        return None
    made, place = node.meta.get("val"), run.order[node]
    count = 2 if node.target in _SYMMETRIC and not node.kwargs else 1
    for part in node.args[:count]:
        if not isinstance(part, fx.Node) or not isinstance(made, Tensor):
            continue
        storages = run.storages.get(part, ())
        others = (each for each in node.all_input_nodes if each is not part)
        if (
            len(storages) == 1
            and run.last.get(storages[0]) == place
            and storages[0] not in run.kept
            and storages[0] not in run.given
            and not any(storages[0] in run.storages.get(other, ()) for other in others)
            and node.args[:2].count(part) == 1
            and _alike(part.meta["val"], made, run.sizes[storages[0]])
        ):
            return part
    return None


def _alike(given: Tensor, made: Tensor, size: int) -> bool:
    """Whether one tensor can lie where another is, which is all of a storage."""
    return (
        made.is_floating_point()  # a complex tensor may be conjugated only when it is read
        and given.dtype == made.dtype
        and given.device == made.device
        and [hint(n) for n in given.shape] == [hint(n) for n in made.shape]
        and [hint(n) for n in given.stride()] == [hint(n) for n in made.stride()]
        and nbytes(made) == size
    )


def reuse(run: "Run") -> None:
    """Let the operators of a pass write into what they read last, in its graph."""
    for node in run.nodes:
        part = overwritten(run, node)
        if part is None:
            continue
        if node.args[0] is not part:
            node.args = (part, node.args[0], *node.args[2:])
        target = into(node)
        if target._overloadname == _INTO:
            node.kwargs = {**node.kwargs, _INTO: part}
        node.target = target
