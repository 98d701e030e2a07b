"""Chains in other people's models: found part by part in traced graphs, and made lean in them.

Every part whose forward can be traced has a graph of its own where there is a chain in it, so that
one part's own forward, where it has to run, goes through lean parts.
"""

from dataclasses import dataclass, field

from torch import fx, nn

from actprune.strategies.lean.chain import lean_chain
from actprune.strategies.lean.forms import has_form
from actprune.strategies.lean.forward import LeanForward, own_way
from actprune.strategies.lean.patterns import LINEARS, FoundChain, after, called_by, chains_of
from actprune.strategies.lean.tracing import UntraceableError, is_called, trace

_NONE = "no GELU to another linear, no affine before, no scale after"


@dataclass
class Search:
    """What is found in a model: lean forwards of its parts, and a word on every linear."""

    gelu: int | None
    forwards: list[LeanForward] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)

    def look(self, module: nn.Module, prefix: str = "") -> set[str]:
        """Look for chains in every part of `module` that has no lean form by hand.

        Returns the full names of the linears within that are in a chain.
        """
        if has_form(module):
            self.words.update(_words_of_form(module, prefix))
        if is_called(module):
            return set()
        names, graph = _linears_of(module), None
        if names and type(module).forward is not nn.Module.forward:
            try:
                graph = trace(module)
            except UntraceableError as problem:
                for name in names:
                    self.words[prefix + name] = f"its model cannot be traced: {problem}"
        found = set[str]()
        for name, child in module.named_children():
            found |= self.look(child, f"{prefix}{name}.")
        if graph is not None:
            found = self._take(module, graph, prefix, found)
        for name in names:
            if why := own_way(module.get_submodule(name)):
                self.words[prefix + name] = why
        return found

    def _take(self, module: nn.Module, graph: fx.Graph, prefix: str, found: set[str]) -> set[str]:
        """Make the chains of a graph lean; where it has any, it runs in place of those within."""
        calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        chains = list(chains_of(module, graph))
        kept = tuple(f"{name}." for name in calls)  # modules that are called: theirs are their own
        names = [name for name in _linears_of(module) if not name.startswith(kept)]
        if chains:
            found = {name for name in found if name.removeprefix(prefix).startswith(kept)}
            inlined = [
                part
                for name, part in module.named_modules(remove_duplicate=False)
                if name not in calls and not name.startswith(kept)
            ]
            called = (called_by(module, node) for chain in chains for node in chain.nodes)
            self.forwards.append(LeanForward(module, graph, [*inlined, *filter(None, called)]))
        for name in names:
            if prefix + name not in found:
                self.words[prefix + name] = _why_none(module, graph, name)
        for chain in chains:
            _replace(graph, chain, self.gelu)
            for name in chain.linears:
                found.add(prefix + name)
                self.words[prefix + name] = chain.text
        return found


def gelus_of(forward: LeanForward) -> set[str]:
    """The names, in its module, of the linears on both sides of the GELUs of its chains."""
    pairs = [node.args[1:3] for node in forward.graph.nodes if node.target is lean_chain]
    layers = [layer for pair in pairs if None not in pair for layer in pair]
    return {str(layer.target) for layer in layers if isinstance(layer, fx.Node)}


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
