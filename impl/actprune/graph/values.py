"""The tensors of a joint graph of both passes: which storages hold them, and who reads them."""

import operator
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

_aten: Any = torch.ops.aten
_ALIASES = (_aten._unsafe_view.default, _aten.lift_fresh.default)
"""Operators that return their argument's storage though their schema does not say so."""
_WAITING = ("_c10d_functional::wait_tensor",)
"""The same, of a library that may be missing."""
_STATEFUL = ("_native_batch_norm_legit_functional", "_batch_norm_with_update_functional")
"""Operators that also return what they update."""
_REPEATING = ("aten", "prims", "actprune")
"""Namespaces whose random operators have a tag; another's may draw, or do more than they return."""
_KNOWN = ("transformers::grouped_mm_fallback",)
"""Others' operators that are known to give the same once more."""
_HUGE = 1e30
"""Masks add as much to what a softmax shall pass over."""
_FINITE = (
    *("_softmax", "_safe_softmax", "exp", "exp2", "sigmoid", "tanh", "erf"),
    *("mm", "bmm", "addmm", "baddbmm", "convolution"),
)
"""What is finite even of infinities, or otherwise is not."""
PASSED = "actprune_passed"
"""In the meta of an input that is an activation: another graph made it."""
UNKNOWN = 4096
"""A size that nobody knows while it is traced counts so."""


@dataclass(eq=False)
class Value:
    """The content of a storage: what an operator made, and the views of it.

    An operator of several results is a value without a size, and each of its results another.
    """

    node: fx.Node
    nodes: list[fx.Node] = field(default_factory=list)
    """All that share the storage, the one that made it first."""
    inputs: list["Value"] = field(default_factory=list)
    """What it is computed from; parameters and inputs of the model are none of them."""
    readers: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)
    """The backward pass's operators that read it, and the view that they read."""
    again: bool = True
    """Whether it gives the same when it is computed once more."""
    finite: bool = True
    """Whether nothing says that it holds infinities, as a mask does: they spoil a group's codes."""

    @property
    def tensor(self) -> Tensor | None:
        """The fake tensor; None for an operator of several results."""
        found = self.node.meta.get("val")
        return found if isinstance(found, Tensor) else None

    @property
    def nbytes(self) -> int:
        """Bytes, by the hints of sizes that are not fixed."""
        return 0 if self.tensor is None else nbytes(self.tensor)


def hint(size: Any) -> int:
    """Return a size as it was when the graph was traced."""
    if isinstance(size, int):
        return size
    known = getattr(size.node, "hint", None)
    return int(known) if known is not None else UNKNOWN


def nbytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor, which may be a fake one of symbolic sizes."""
    return hint(tensor.numel()) * tensor.element_size()


def tensors(node: fx.Node) -> Iterator[Tensor]:
    """Yield what a node gives: tensors, alone or in a list."""
    found = node.meta.get("val")
    for part in found if isinstance(found, list | tuple) else (found,):
        if isinstance(part, Tensor):
            yield part


def result_of(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operator gives for nodes and other arguments: fake tensors."""
    real = fx.map_arg(args, lambda part: part.meta["val"])
    modes = (part.fake_mode for part in tree_leaves(real) if isinstance(part, FakeTensor))
    with next(modes):
        return function(*real, **kwargs)


def is_view(node: fx.Node) -> bool:
    """Whether a node gives storages of its first argument."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        base = node.args[0]
        return isinstance(base, fx.Node) and is_view(base)
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target in _ALIASES or node.target._schema.name in _WAITING:
        return True
    returns = node.target._schema.returns
    return bool(returns) and returns[0].alias_info is not None


def repeats(node: fx.Node, changed: set[fx.Node]) -> bool:
    """Whether an operator gives the same once more, and does nothing else.

    changed: the inputs of the graph that the forward pass writes to, and their views.
    """
    target = node.target
    if target is operator.getitem:
        return True
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    known = target.namespace in _REPEATING or target._schema.name in _KNOWN
    if not known or target._schema.is_mutable:
        return False
    if target._schema.name.partition("::")[2] in (*_STATEFUL, "inductor_seeds"):
        return False
    if torch.Tag.nondeterministic_seeded in target.tags and _draws(node):
        return False
    return not any(part in changed for part in node.all_input_nodes)


def _draws(node: fx.Node) -> bool:
    """Attention is tagged as random for a dropout that it may do without."""
    schema = node.target._schema  # type: ignore[union-attr]
    for place, argument in enumerate(schema.arguments):
        if argument.name == "dropout_p":
            given = node.args[place] if place < len(node.args) else argument.default_value
            return bool(node.kwargs.get("dropout_p", given))
    return True


def is_finite(node: fx.Node, inputs: Sequence[Value]) -> bool:
    """Whether nothing says that an operator gives infinities, or what stands for them in masks."""
    schema = getattr(node.target, "_schema", None)
    name = "" if schema is None else schema.name.partition("::")[2]
    given = (part for part in tree_leaves((node.args, node.kwargs)) if isinstance(part, float))
    if any(abs(part) >= _HUGE for part in given):
        return False
    return name in _FINITE or all(part.finite for part in inputs)


def statistics(node: fx.Node) -> list[fx.Node]:
    """Return the results with a batch's mean and inverse deviation, where a node is the third.

    The third is what batch norm makes of its input; of any other node there are none.
    """
    first = node.target is operator.getitem and node.args[1] == 0
    made: Any = node.args[0] if first else None
    schema = getattr(getattr(made, "target", None), "_schema", None)
    if schema is None or schema.name.partition("::")[2] not in _STATEFUL or not made.args[5]:
        return []
    return [user for place in (1, 2) for user in made.users if user.args[1] == place]


def passed_activations(inputs: Sequence[Any]) -> list[int]:
    """Return the places of inputs that other graphs or eager operators made of parameters.

    One that shares its storage with another is none of them: to hold its codes frees nothing.
    """
    tensors = [each for each in inputs if isinstance(each, Tensor) and _is_plain(each)]
    counts = Counter(each.untyped_storage()._cdata for each in tensors)
    return [
        place
        for place, each in enumerate(inputs)
        if isinstance(each, Tensor) and _is_plain(each) and each.requires_grad and not each.is_leaf
        if counts[each.untyped_storage()._cdata] == 1
        if nbytes(each) == hint(each.untyped_storage().nbytes())
    ]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not is_traceable_wrapper_subclass(tensor)


def mark(graph: fx.Graph, passed: Collection[int]) -> None:
    """Mark the inputs of a joint graph that other graphs made, by their places among all."""
    for node in graph.find_nodes(op="placeholder"):
        place = getattr(node.meta.get("desc"), "idx", None)
        if place in passed and "tangents" not in str(node.target):
            node.meta[PASSED] = True


class Joint:
    """The joint graph that AOTAutograd traces, its nodes told apart."""

    def __init__(self, graph: fx.Graph, outputs: int) -> None:
        self.graph = graph
        (output,) = graph.find_nodes(op="output")
        results = list(output.args[0])
        self.count = outputs
        """How many results are the forward pass's."""
        self.outputs = [part for part in results[:outputs] if isinstance(part, fx.Node)]
        self.gradients = [part for part in results[outputs:] if isinstance(part, fx.Node)]
        self.placeholders = graph.find_nodes(op="placeholder")
        self.backward = self._backward()
        self.values: dict[fx.Node, Value] = {}
        """By every node of it, views too; parameters, and the inputs of the model, have none."""
        self.changed = self._changed()
        """Inputs that the forward pass writes to, and their views."""
        for node in graph.nodes:
            made = node.op == "placeholder" and PASSED in node.meta and node not in self.changed
            if made or (node.op == "call_function" and node not in self.backward):
                self._add(node, self.changed)
        self._normalize()
        self._read()

    def _backward(self) -> set[fx.Node]:
        """All that follows from a tangent."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            starts = node.op == "placeholder" and "tangents" in str(node.target)
            starts = starts or node.meta.get("partitioner_tag") == "must_be_in_backward"
            follows = any(part in found for part in node.all_input_nodes)
            if node.op != "output" and (starts or follows):
                found.add(node)
        return found

    def _changed(self) -> set[fx.Node]:
        """Inputs that the forward pass writes to, and their views: batch norm's statistics."""
        found = {
            node.args[0]
            for node in self.graph.nodes
            if node.target is _aten.copy_.default and node not in self.backward
        }
        context = TracingContext.try_get()
        metadata = getattr(context, "fw_metadata", None)
        primals = [node for node in self.placeholders if "tangents" not in str(node.target)]
        for place in getattr(metadata, "mutated_inp_runtime_indices", None) or ():
            if place < len(primals):
                found.add(primals[place])
        for node in self.graph.nodes:
            if is_view(node) and node.args[0] in found:
                found.add(node)
        return {node for node in found if isinstance(node, fx.Node)}

    def _add(self, node: fx.Node, changed: set[fx.Node]) -> None:
        if not any(True for _ in tensors(node)):
            return  # a size, which costs nothing
        if is_view(node):
            base = self.values.get(node.args[0])  # type: ignore[arg-type]
            if base is not None:
                self.values[node] = base
                base.nodes.append(node)
            return
        value = Value(node, [node])
        found = (self.values.get(part) for part in node.all_input_nodes)
        value.inputs = list(dict.fromkeys(part for part in found if part is not None))
        there = all(part.again or part.tensor is not None for part in value.inputs)
        value.again = there and repeats(node, changed)
        value.finite = is_finite(node, value.inputs)
        self.values[node] = value

    def _normalize(self) -> None:
        """What batch norm gives is computed again from its statistics, which then stay as they are.

        The operator itself would update the running ones once more.
        """
        for value in set(self.values.values()):
            parts = [value.node, *statistics(value.node)]
            if len(parts) == 3 and all(part in self.values for part in parts):
                norm: Any = value.node.args[0]
                given = [norm.args[0], *parts[1:]]
                value.inputs = [self.values[p] for p in given if p in self.values]
                value.again = True

    def _read(self) -> None:
        for node in self.graph.nodes:
            if node in self.backward:
                for part in node.all_input_nodes:
                    if part in self.values:
                        self.values[part].readers.append((node, part))
        for node in self.gradients:
            if node in self.values:  # a gradient that follows from no tangent
                self.values[node].readers.append((node, node))

    def needed(self) -> list[Value]:
        """What the backward pass reads, and what that is computed from, in order."""
        found: dict[Value, None] = {}
        stack = [value for value in dict.fromkeys(self.values.values()) if value.readers][::-1]
        while stack:
            value = stack[-1]
            missing = [part for part in value.inputs if part not in found]
            if value in found or not missing:
                found[stack.pop()] = None
            else:
                stack += missing
        return list(found)
