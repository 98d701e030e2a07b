"""Chains in other people's models: found part by part in traced graphs, and made lean in them.

Every part whose forward can be traced has a graph of its own where there is a chain in it, so that
one part's own forward, where it has to run, goes through lean parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from actprune.strategies.lean.chain import Chain, Options
from actprune.strategies.lean.forms import has_form
from actprune.strategies.lean.forward import LeanForward, own_way
from actprune.strategies.lean.linears import kept, weights
from actprune.strategies.lean.patterns import LINEARS, FoundChain, after, called_by, chains_of
from actprune.strategies.lean.tracing import UntraceableError, is_called, trace

_NONE = "no GELU to another linear, no affine before, no scale after"


@dataclass
class Part:
    """A module with chains, its graph in which they are lean, and the modules inlined in it."""

    module: nn.Module
    graph: fx.Graph
    inlined: list[nn.Module] = field(default_factory=list)


@dataclass
class Search:
    """What was found in a model: its parts with chains, and a word on every linear."""

    parts: list[Part] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)


def find_chains(model: nn.Module, gelu: int | None) -> Search:
    """Look for chains in every part of `model` that has no lean form by hand."""
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


def gelus_of(forward: LeanForward) -> set[str]:
    """The names, in its module, of the linears on both sides of the GELUs of its chains."""
    pairs = [node.args[1:3] for node in forward.graph.nodes if node.target is lean_chain]
    layers = [layer for pair in pairs if None not in pair for layer in pair]
    return {str(layer.target) for layer in layers if isinstance(layer, fx.Node)}


def _search(module: nn.Module, prefix: str, result: Search, gelu: int | None) -> set[str]:
    """Add to `result`; the full names of the linears within that are in a chain."""
    if has_form(module):
        result.words.update(_words_of_form(module, prefix))
    if is_called(module):
        return set()
    names, graph = _linears_of(module), None
    if names and type(module).forward is not nn.Module.forward:
        try:
            graph = trace(module)
        except UntraceableError as problem:
            for name in names:
                result.words[prefix + name] = f"its model cannot be traced: {problem}"
    found = set[str]()
    for name, child in module.named_children():
        found |= _search(child, f"{prefix}{name}.", result, gelu)
    if graph is not None:
        found = _take(Part(module, graph), prefix, found, result, gelu)
    for name in names:
        if why := own_way(module.get_submodule(name)):
            result.words[prefix + name] = why
    return found


def _take(part: Part, prefix: str, found: set[str], result: Search, gelu: int | None) -> set[str]:
    """Make the chains of a graph lean; where it has any, it runs in place of those within."""
    module, graph, inlined = part.module, part.graph, part.inlined
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    chains = list(chains_of(module, graph))
    kept = tuple(f"{name}." for name in calls)  # modules that are called: theirs are their own
    names = [name for name in _linears_of(module) if not name.startswith(kept)]
    if chains:
        found = {name for name in found if name.removeprefix(prefix).startswith(kept)}
        inlined += _inlined(module, "", set(calls))
        result.parts.append(part)
    for name in names:
        if prefix + name not in found:
            result.words[prefix + name] = _why_none(module, graph, name)
    for chain in chains:
        inlined += [called for node in chain.nodes if (called := called_by(module, node))]
        _replace(graph, chain, gelu)
        for name in chain.linears:
            found.add(prefix + name)
            result.words[prefix + name] = chain.text
    return found


def _inlined(module: nn.Module, prefix: str, calls: set[str]) -> Iterator[nn.Module]:
    """`module` and all that is in it, but for what is called and all in that."""
    yield module
    for name, child in module.named_children():
        if prefix + name not in calls:
            yield from _inlined(child, f"{prefix}{name}.", calls)


def _why_none(module: nn.Module, graph: fx.Graph, name: str) -> str:
    nodes = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if len(nodes) > 1:
        return "used more than once"
    for node in nodes:
        for near in (*node.all_input_nodes, *after(module, node)):
            called = called_by(module, near)
            if called is not None and own_way(called):
                return f"{near.target}: {own_way(called)}"
    return _NONE


def _words_of_form(block: nn.Module, prefix: str) -> dict[str, str]:
    """Of its linears, where they are not lean."""
    own = [(name, why) for name, part in block.named_modules() if name and (why := own_way(part))]
    linears = [name for name, part in block.named_modules() if type(part) in LINEARS]
    return {prefix + name: f"{part}: {why}" for part, why in own[:1] for name in linears}


def _linears_of(module: nn.Module) -> list[str]:
    """The names of its linears, but for those of modules with a lean form by hand."""
    blocks = [f"{name}." for name, part in module.named_modules() if has_form(part)]
    linears = [name for name, part in module.named_modules() if type(part) in LINEARS]
    return [name for name in linears if not name.startswith(tuple(blocks))]


def _replace(graph: fx.Graph, chain: FoundChain, gelu: int | None) -> None:
    last = chain.nodes[-1]
    with graph.inserting_before(last):
        layers = [graph.create_node("get_attr", name) for name in chain.linears]
        arguments = chain.x, layers[0], layers[1] if len(layers) > 1 else None
        made = graph.call_function(lean_chain, (*arguments, chain.affine, chain.scale, gelu))
    last.replace_all_uses_with(made)
    for node in reversed(chain.nodes):
        graph.erase_node(node)
