"""Chains in other people's models: found in the graphs that torch.fx traces, and made lean.

Found are linear-GELU-linear and affine-linear-scale, and both at once, where nothing else uses what
lies between. A model that cannot be traced as a whole (its forward depends on the data) is searched
part by part.
"""

import inspect
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from actprune.lean.functions import Chain, Options, kept, weights
from actprune.linear import PrunedLinear
from actprune.models.resmlp import Block

LINEARS = (nn.Linear, PrunedLinear)
_MULTIPLY, _ADD = (operator.mul, torch.mul, "mul"), (operator.add, torch.add, "add")
_NONE = "no GELU to another linear, no affine before, no scale after"


class LeanForward:
    """A module's forward with its chains lean in training; it replaces the module's own."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module, self.graph = module, graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = type(self.module).forward
        if not (self.module.training and torch.is_grad_enabled()):
            return own(self.module, *args, **kwargs)
        given = inspect.signature(own).bind(self.module, *args, **kwargs)
        given.apply_defaults()
        return fx.Interpreter(self.module, graph=self.graph).run(
            *list(given.arguments.values())[1:]
        )


@dataclass
class Found:
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
        parts = ["affine"] * (self.affine is not None) + [
            "-GELU-".join(["linear"] * len(self.linears))
        ]
        return "-".join([*parts, *["scale"] * (self.scale is not None)])


@dataclass
class Search:
    """What was found in a model: a graph for each part with chains, and a word on every linear."""

    graphs: dict[str, fx.Graph] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


def search(model: nn.Module, gelu: int | None) -> Search:
    """Look for chains in every part of `model` that is no ResMLP block."""
    result = Search()
    _search(model, "", result, gelu)
    return result


def lean_chain(
    x: Tensor,
    first: nn.Linear,
    second: nn.Linear | None,
    affine: tuple[Tensor, Tensor] | None,
    scale: Tensor | None,
    gelu: int | None,
) -> Tensor:
    """What the layers of a chain compute, with what Chain keeps."""
    layers = [first] if second is None else [first, second]
    parameters = [weights(layer, x) for layer in layers]
    alpha, beta = (None, None) if affine is None else (part.reshape(-1) for part in affine)
    gamma = None if scale is None else scale.reshape(-1)
    both = [kept(layer, x.device, x.shape[:-1].numel()) for layer in layers]
    second_parameters = parameters[1] if second is not None else (None, None)
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = Chain.apply(  # type: ignore[no-untyped-call]
            x, alpha, beta, *parameters[0], *second_parameters, gamma, both, Options(gelu, False)
        )
    return out


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Block, *LINEARS)) or super().is_leaf_module(m, module_qualified_name)


def _search(module: nn.Module, prefix: str, result: Search, gelu: int | None) -> None:
    if isinstance(module, (Block, *LINEARS)):
        return
    names = _linears_of(module)
    try:
        graph = _Tracer().trace(module)
    except Exception as problem:  # whatever a forward does with a tensor that has no values
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        for name in names:
            result.words[prefix + name] = f"its model cannot be traced: {reason}"
        for name, child in module.named_children():
            _search(child, f"{prefix}{name}.", result, gelu)
        return
    chains = list(_chains(module, graph))
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for name in names:
        shared = calls.count(name) > 1
        result.words[prefix + name] = "used more than once" if shared else _NONE
    for chain in chains:
        _replace(graph, chain, gelu)
        for name in chain.linears:
            result.words[prefix + name] = chain.text
    if chains:
        result.graphs[prefix.rstrip(".")] = graph


def _linears_of(module: nn.Module) -> list[str]:
    """The names of its linears, but for those of ResMLP blocks."""
    blocks = [f"{name}." for name, part in module.named_modules() if isinstance(part, Block)]
    linears = [name for name, part in module.named_modules() if type(part) in LINEARS]
    return [name for name in linears if not name.startswith(tuple(blocks))]


def _chains(module: nn.Module, graph: fx.Graph) -> Iterator[Found]:
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        if node in taken or not _is_linear(module, node) or calls.count(node.target) > 1:
            continue
        chain = Found([node], _input(node), [str(node.target)])
        second = _second(module, node)
        if second and calls.count(second[-1].target) == 1:
            chain.nodes += second
            chain.linears.append(str(second[-1].target))
        _add_affine(module, chain)
        _add_scale(module, chain)
        if len(chain.linears) == 2 or chain.affine or chain.scale:
            taken.update(chain.nodes)
            yield chain


def _second(module: nn.Module, node: fx.Node) -> list[fx.Node]:
    """The nodes of a GELU that alone uses `node` and of a linear after it; else empty."""
    gelu = _only_user(node)
    if gelu is None or not _is_gelu(module, gelu):
        return []
    nodes = [gelu, *_after(module, gelu)]
    return nodes if _is_linear(module, nodes[-1]) else []


def _after(module: nn.Module, node: fx.Node) -> Iterator[fx.Node]:
    """The only users one after the other, to the first that is no idle dropout."""
    user = _only_user(node)
    while user is not None:
        yield user
        user = _only_user(user) if _is_idle(module, user) else None


def _add_affine(module: nn.Module, chain: Found) -> None:
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


def _add_scale(module: nn.Module, chain: Found) -> None:
    """γ times the chain, after it."""
    nodes = list(_after(module, chain.nodes[-1]))
    if not nodes or not _is_one_of(nodes[-1], _MULTIPLY):
        return
    size = _linear(module, chain.linears[-1]).out_features
    scales = [part for part in nodes[-1].all_input_nodes if _is_vector(module, part, size)]
    if len(scales) == 1:
        chain.nodes += nodes
        chain.scale = scales[0]


def _replace(graph: fx.Graph, chain: Found, gelu: int | None) -> None:
    last = chain.nodes[-1]
    with graph.inserting_before(last):
        layers = [graph.create_node("get_attr", name) for name in chain.linears]
        arguments = chain.x, layers[0], layers[1] if len(layers) > 1 else None
        made = graph.call_function(lean_chain, (*arguments, chain.affine, chain.scale, gelu))
    last.replace_all_uses_with(made)
    for node in reversed(chain.nodes):
        graph.erase_node(node)


def _linear(module: nn.Module, name: str) -> nn.Linear:
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def _input(node: fx.Node) -> fx.Node:
    (x,) = node.all_input_nodes
    return x


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _module(module: nn.Module, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_linear(module: nn.Module, node: fx.Node) -> bool:
    return type(_module(module, node)) in LINEARS


def _is_gelu(module: nn.Module, node: fx.Node) -> bool:
    called = _module(module, node)
    if called is None:
        return node.target is F.gelu and node.kwargs.get("approximate", "none") == "none"
    return type(called) is nn.GELU and called.approximate == "none"


def _is_idle(module: nn.Module, node: fx.Node) -> bool:
    called = _module(module, node)
    return type(called) is nn.Identity or (type(called) is nn.Dropout and called.p == 0)


def _is_one_of(node: fx.Node, targets: tuple[object, ...]) -> bool:
    return (
        node.op in ("call_function", "call_method") and node.target in targets and not node.kwargs
    )


def _is_vector(module: nn.Module, node: object, size: int) -> bool:
    """Whether it is a parameter that multiplies or shifts features, the last dimension."""
    if not (isinstance(node, fx.Node) and node.op == "get_attr"):
        return False
    place, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(place), name)
    return isinstance(value, nn.Parameter) and value.numel() == size and value.shape[-1:] == (size,)
