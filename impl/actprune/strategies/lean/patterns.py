"""The patterns of lean chains in a graph of torch.fx.

They are linear-GELU-linear and affine-linear-scale, and both at once, where nothing else uses what
lies between and no module that they would run in place of has hooks.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from actprune.layers.linear import PrunedLinear
from actprune.strategies.lean.forward import own_way
from actprune.strategies.lean.tracing import AUGMENTED

LINEARS = (nn.Linear, PrunedLinear)
_MULTIPLY, _ADD = (operator.mul, torch.mul, "mul"), (operator.add, torch.add, "add")


@dataclass
class FoundChain:
    """One chain in a graph, and the nodes that it replaces, in their order."""

    nodes: list[fx.Node]
    x: fx.Node
    linears: list[str]
    affine: tuple[fx.Node, fx.Node] | None = None
    """α and β."""
    scale: fx.Node | None = None

    @property
    def text(self) -> str:
        """Such as affine-linear-GELU-linear."""
        linears = "-GELU-".join(["linear"] * len(self.linears))
        return f"{'affine-' if self.affine else ''}{linears}{'-scale' if self.scale else ''}"


def chains_of(module: nn.Module, graph: fx.Graph) -> Iterator[FoundChain]:
    """The chains in `module`'s graph, which share no node."""
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        if node in taken or not _is_linear(module, node) or calls.count(node.target) > 1:
            continue
        (x,) = node.all_input_nodes
        chain = FoundChain([node], x, [str(node.target)])
        second = _second(module, node)
        if second and calls.count(second[-1].target) == 1:
            chain.nodes += second
            chain.linears.append(str(second[-1].target))
        _add_affine(module, chain)
        _add_scale(module, chain)
        found = len(chain.linears) == 2 or chain.affine or chain.scale
        if found and not _is_written_within(module, chain):
            taken.update(chain.nodes)
            yield chain


def _is_written_within(module: nn.Module, chain: FoundChain) -> bool:
    """Whether anything is changed in place between its nodes, where the chain runs as one."""
    node = chain.nodes[0]
    while node is not chain.nodes[-1]:
        called = called_by(module, node)
        name = str(getattr(node.target, "__name__", node.target))
        in_place = node.op != "call_module" and name.endswith("_") and not name.endswith("__")
        in_place |= node.target in AUGMENTED or bool(node.kwargs.get("inplace"))
        if node not in chain.nodes and (in_place or getattr(called, "inplace", False)):
            return True
        node = node.next
    return False


def _second(module: nn.Module, node: fx.Node) -> list[fx.Node]:
    """The nodes of a GELU that alone uses `node` and of a linear after it; else empty."""
    gelu = _only_user(node)
    if gelu is None or not _is_gelu(module, gelu):
        return []
    nodes = [gelu, *after(module, gelu)]
    return nodes if _is_linear(module, nodes[-1]) else []


def after(module: nn.Module, node: fx.Node) -> Iterator[fx.Node]:
    """The only users one after the other, to the first that is no idle dropout."""
    user = _only_user(node)
    while user is not None:
        yield user
        user = _only_user(user) if _is_idle(module, user) else None


def _add_affine(module: nn.Module, chain: FoundChain) -> None:
    """α x + β, as a sum of a product or by torch.addcmul, before the chain."""
    node = chain.x
    if len(node.users) > 1:
        return
    inner: fx.Node | None = None
    if node.op == "call_function" and node.target is torch.addcmul and not node.kwargs:
        beta, *factors = node.args
    elif _is_one_of(node, _ADD):
        sides = [part for part in node.args if isinstance(part, fx.Node)]
        inner = next((part for part in sides if _is_one_of(part, _MULTIPLY)), None)
        if inner is None or len(inner.users) > 1 or len(sides) != 2:
            return
        factors = list(inner.args)
        beta = next(part for part in sides if part is not inner)
    else:
        return
    size = _linear(module, chain.linears[0]).in_features
    alphas = [part for part in factors if _is_vector(module, part, size)]
    inputs = [part for part in factors if part not in alphas]
    if len(alphas) != 1 or len(inputs) != 1 or not _is_vector(module, beta, size):
        return
    if isinstance(alphas[0], fx.Node) and isinstance(inputs[0], fx.Node):
        assert isinstance(beta, fx.Node)
        chain.nodes = [*([] if inner is None else [inner]), node, *chain.nodes]
        chain.affine, chain.x = (alphas[0], beta), inputs[0]


def _add_scale(module: nn.Module, chain: FoundChain) -> None:
    """γ times the chain, after it."""
    nodes = list(after(module, chain.nodes[-1]))
    if not nodes or not _is_one_of(nodes[-1], _MULTIPLY):
        return
    size = _linear(module, chain.linears[-1]).out_features
    scales = [part for part in nodes[-1].all_input_nodes if _is_vector(module, part, size)]
    if len(scales) == 1:
        chain.nodes += nodes
        chain.scale = scales[0]


def _linear(module: nn.Module, name: str) -> nn.Linear:
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def called_by(module: nn.Module, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_linear(module: nn.Module, node: fx.Node) -> bool:
    called = called_by(module, node)
    return called is not None and type(called) in LINEARS and not own_way(called)


def _is_gelu(module: nn.Module, node: fx.Node) -> bool:
    called = called_by(module, node)
    if called is None:
        return node.target is F.gelu and node.kwargs.get("approximate", "none") == "none"
    return type(called) is nn.GELU and called.approximate == "none" and not own_way(called)


def _is_idle(module: nn.Module, node: fx.Node) -> bool:
    called = called_by(module, node)
    if type(called) is nn.Identity or (type(called) is nn.Dropout and called.p == 0):
        return not own_way(called)
    return False


def _is_one_of(node: fx.Node, targets: tuple[object, ...]) -> bool:
    called = node.op in ("call_function", "call_method")
    return called and node.target in targets and not node.kwargs


def _is_vector(module: nn.Module, node: object, size: int) -> bool:
    """Whether it is a parameter that multiplies or shifts features, the last dimension."""
    if not (isinstance(node, fx.Node) and node.op == "get_attr"):
        return False
    place, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(place), name)
    return isinstance(value, nn.Parameter) and value.numel() == size and value.shape[-1:] == (size,)
