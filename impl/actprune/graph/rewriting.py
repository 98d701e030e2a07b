"""The joint graph in which stores stand for values, and what is computed again is written out."""

import operator
import zlib
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
import torch._functorch.config as config
from torch import fx
from torch._functorch import partitioners
from torch.utils._pytree import tree_leaves

from actprune.formats import Codes, parse
from actprune.graph import operators
from actprune.graph.options import narrow_of
from actprune.graph.plan import ABSENT, BITS, KEEP, NARROW, OFFLOAD, RECOMPUTE, WAYS
from actprune.graph.products import group_for, is_weight_gradient
from actprune.graph.schedule import STORE, VALUE
from actprune.graph.values import Joint, Value, result_of, statistics
from actprune.layers import ops
from actprune_common.errors import InputError

_aten: Any = torch.ops.aten
_BEFORE = "actprune_before"
"""In a node's meta: it belongs to the forward pass."""


class Rewriting:
    """Lets the backward part of a joint graph read stores and what is computed from them."""

    def __init__(self, joint: Joint, choices: Mapping[str, str]) -> None:
        self.joint, self.choices, self.graph = joint, choices, joint.graph
        self.inside: dict[fx.Node, fx.Node] = {}
        """By node of the forward pass: what the backward pass reads instead."""
        self.stores: dict[Value, list[fx.Node]] = {}
        """What is held of a value, by an operator of the forward pass."""
        self.decoded = self._decoded()

    def _decoded(self) -> set[Value]:
        """The values that are not only factors of weight gradients."""
        found = set()
        for value in self.joint.needed():
            if self.choices.get(value.node.name, ABSENT) == RECOMPUTE:
                found.update(value.inputs)
            if not all(is_weight_gradient(node, view, value) for node, view in value.readers):
                found.add(value)
        return found

    def run(self) -> None:
        """Rewrite the graph."""
        for node in list(self.graph.nodes):
            if node in self.joint.backward and node.op == "call_function":
                if self._multiplied(node):
                    continue
                for part in node.all_input_nodes:
                    if part in self.joint.values:
                        node.replace_input_with(part, self.read(part, node))
        (output,) = self.graph.find_nodes(op="output")
        results = list(output.args[0])
        for place in range(self.joint.count, len(results)):
            if results[place] in self.joint.values:
                results[place] = self.read(results[place], output)
        output.args = (tuple(results),)
        for node in self.graph.nodes:
            node.meta.pop("recompute", None)
        # what nobody reads any more goes, random operators as well, which torch may leave
        self.graph.eliminate_dead_code(is_impure_node=_has_effects)

    def read(self, wanted: fx.Node, before: fx.Node) -> fx.Node:
        """Return the node that stands for one of the forward pass, put before `before`."""
        stack = [wanted]
        while stack:
            node = stack[-1]
            if node in self.inside:
                stack.pop()
                continue
            value = self.joint.values[node]
            choice = self.choices.get(value.node.name, RECOMPUTE)
            held = node is value.node and choice not in (RECOMPUTE, ABSENT)
            parts = [] if held else [p for p in _inputs(node) if p in self.joint.values]
            missing = [part for part in parts if part not in self.inside]
            if missing:
                stack += missing
                continue
            stack.pop()
            self.inside[node] = (
                self._held(value, choice, before) if held else self._again(node, before)
            )
        return self.inside[wanted]

    def _multiplied(self, node: fx.Node) -> bool:
        """Let a weight gradient be computed from the store of its factor, where it can be."""
        value = self.joint.values.get(node.args[1]) if node.target is _aten.mm.default else None  # type: ignore[arg-type]
        choice = self.choices.get(value.node.name, ABSENT) if value is not None else ABSENT
        if value is None or value in self.decoded or choice in WAYS:
            return False
        factor, view = node.args[0], node.args[1]
        assert isinstance(factor, fx.Node)
        assert isinstance(view, fx.Node)
        (grad,), features = factor.all_input_nodes, view.meta["val"].shape[1]
        stores, spec = self._stored(value, choice)
        with self.graph.inserting_before(node):
            made = self.graph.call_function(
                ops.grad_weight, (stores, grad, spec, self._number(value, features))
            )
        made.meta.update(node.meta)
        _as_traced(made)
        node.replace_all_uses_with(made)
        self.graph.erase_node(node)
        return True

    def _number(self, value: Value, size: Any) -> Any:
        assert value.tensor is not None
        if isinstance(size, int):
            return size
        return self._size(value, _aten.sym_size.int, value.tensor.dim() - 1, size)

    def _stored(self, value: Value, choice: str) -> tuple[list[fx.Node], str]:
        """The nodes of a format's store of a value, and its spec."""
        format, tensor = parse(choice), value.tensor
        assert tensor is not None
        if isinstance(format, Codes):
            group = group_for(tensor, format)
            spec = Codes(bits=format.bits, group=group).spec
            if value not in self.stores:
                _, stride = self._layout(value)
                args = value.node, format.bits, group, stride
                self.stores[value] = [self._store(value, operators.pack, args)]
            return self.stores[value], spec
        if value not in self.stores:
            self.stores[value] = self._pruned(value, format)
        return self.stores[value], format.spec

    def _pruned(self, value: Value, format: Any) -> list[fx.Node]:
        """The tensors that a pruning format keeps of a value's rows of features."""
        tensor = value.tensor
        assert tensor is not None
        features = self._number(value, tensor.shape[-1])
        rows = self._after(value.node, _aten.view.default, (value.node, [-1, features]))
        draw = None
        if format.stochastic:
            stream = zlib.crc32(value.node.name.encode()) & 0x7FFFFFFF
            draw = self._after(rows, operators.draw, (rows, None, format.seed, stream))
        kept = self._after(draw or rows, ops.compress, (rows, format.spec, draw))
        found, last = [], kept
        for place in range(len(format.fields)):
            last = self._after(last, operator.getitem, (kept, place))
            last.meta[_BEFORE] = True
            last.meta[STORE] = value.node.name
            found.append(last)
        return found

    def _again(self, node: fx.Node, before: fx.Node) -> fx.Node:
        if statistics(node):
            return self._normalized(node, before)
        with self.graph.inserting_before(before):
            made = self.graph.node_copy(node, lambda part: self.inside.get(part, part))
        made.meta[VALUE] = self.joint.values[node].node.name
        return _placed(made, "is_backward")

    def _normalized(self, node: fx.Node, before: fx.Node) -> fx.Node:
        """Batch norm by the statistics of the batch, as if they were the running ones."""
        norm = node.args[0]
        assert isinstance(norm, fx.Node)
        x, weight, bias, _, _, _, momentum, eps = norm.args
        mean, invstd = (self.inside[part] for part in statistics(node))
        x = self.inside.get(x, x)  # type: ignore[arg-type]

        def call(function: Any, *args: Any) -> fx.Node:
            with self.graph.inserting_before(before):
                made = self.graph.call_function(function, args)
            made.meta["val"] = result_of(function, args, {})
            return _placed(made, "is_backward")

        variance = call(_aten.sub.Tensor, call(_aten.pow.Tensor_Scalar, invstd, -2), eps)
        function = _aten._native_batch_norm_legit_no_training.default
        made = call(function, x, weight, bias, mean, variance, momentum, eps)
        found = call(operator.getitem, made, 0)
        found.meta[VALUE] = node.name
        return found

    def _held(self, value: Value, choice: str, before: fx.Node) -> fx.Node:
        tensor = value.tensor
        assert tensor is not None
        if choice == KEEP:
            value.node.meta[_BEFORE] = True
            value.node.meta[VALUE] = value.node.name
            return value.node
        if choice == BITS:
            size, stride = self._layout(value)
            kept = self._store(value, operators.pack_bits, (value.node, stride))
            return self._restored(value, before, operators.unpack_bits, (kept, size, stride))
        if choice == NARROW:
            dtype = narrow_of(value)
            kept = self._store(value, _aten._to_copy.default, (value.node,), {"dtype": dtype})
            back = {"dtype": torch.int64}
            return self._restored(value, before, _aten._to_copy.default, (kept,), back)
        if choice == OFFLOAD:
            kept = self._store(value, operators.offload, (value.node,))
            return self._restored(value, before, operators.reload, (kept, tensor.device))
        stores, _ = self._stored(value, choice)
        format = parse(choice)
        if isinstance(format, Codes):
            args = (
                *stores,
                format.bits,
                group_for(tensor, format),
                *self._layout(value),
                tensor.dtype,
            )
            return self._restored(value, before, operators.unpack, args)
        raise InputError(f"plan: {choice} serves weight gradients alone, not {value.node.name}")

    def _layout(self, value: Value) -> tuple[list[Any], list[Any]]:
        """The sizes and strides of a value: numbers, or nodes where they are symbolic."""
        tensor = value.tensor
        assert tensor is not None
        return (
            [self._size(value, _aten.sym_size.int, d, n) for d, n in enumerate(tensor.shape)],
            [self._size(value, _aten.sym_stride.int, d, n) for d, n in enumerate(tensor.stride())],
        )

    def _size(self, value: Value, function: Any, dim: int, size: Any) -> Any:
        if isinstance(size, int):
            return size
        last = self.joint.placeholders[-1] if value.node.op == "placeholder" else value.node
        with self.graph.inserting_after(last):
            made = self.graph.call_function(function, (value.node, dim))
        made.meta["val"] = size
        made.meta[_BEFORE] = True
        return _placed(made, "is_forward")

    def _store(self, value: Value, function: Any, args: Any, kwargs: Any = None) -> fx.Node:
        taken = [part for part in tree_leaves(args) if isinstance(part, fx.Node)]
        made = self._after(max(taken), function, args, kwargs)
        made.meta[_BEFORE] = True
        made.meta[STORE] = value.node.name
        return made

    def _after(self, place: fx.Node, function: Any, args: Any, kwargs: Any = None) -> fx.Node:
        if place.op == "placeholder":
            place = self.joint.placeholders[-1]
        with self.graph.inserting_after(place):
            made = self.graph.call_function(function, args, kwargs or {})
        made.meta["val"] = result_of(function, args, kwargs or {})
        return _placed(_as_traced(made), "is_forward")

    def _restored(
        self, value: Value, before: fx.Node, function: Any, args: Any, kwargs: Any = None
    ) -> fx.Node:
        with self.graph.inserting_before(before):
            made = self.graph.call_function(function, args, kwargs or {})
        made.meta["val"] = value.tensor
        made.meta[VALUE] = value.node.name
        return _placed(_as_traced(made), "is_backward")


def _has_effects(node: fx.Node) -> bool:
    """Whether a node does more than give a result; drawing random numbers is nothing else."""
    if node.op != "call_function":
        return True
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags and node.is_impure()


def _inputs(node: fx.Node) -> list[fx.Node]:
    """What a node is computed again from."""
    known = statistics(node)
    norm: Any = node.args[0] if known else None
    return [norm.args[0], *known] if known else node.all_input_nodes


def _as_traced(node: fx.Node) -> fx.Node:
    """Have inductor pass what a node takes with the strides that it has here, as if traced so.

    Stores are in the order of memory; to an operator that a pass has put into a graph, inductor
    else passes whatever layout it likes.
    """
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda part: part.meta["val"])
    node.meta["eager_input_vals"] = args, kwargs
    return node


def _placed(node: fx.Node, tag: str) -> fx.Node:
    node.meta["partitioner_tag"] = tag
    return node


def split(
    joint_module: fx.GraphModule, inputs: Any, **options: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return the two passes of a joint graph that was rewritten, by torch's own partitioner.

    It is told what to keep, where it would choose; the order is ours already.
    """

    def crossing(graph: fx.Graph, info: Any, *_: Any, **__: Any) -> list[fx.Node]:
        before: set[fx.Node] = set(info.required_fw_nodes)
        inputs = graph.find_nodes(op="placeholder")
        before.update(node for node in inputs if "tangents" not in str(node.target))
        stack = [node for node in graph.nodes if node.meta.get(_BEFORE)]
        while stack:
            node = stack.pop()
            if node not in before:
                before.add(node)
                stack += node.all_input_nodes
        (output,) = graph.find_nodes(op="output")
        gradients = set(output.args[0][options["num_fwd_outputs"] :])
        return [
            node
            for node in graph.nodes
            if node in before
            if node in gradients or any(u not in before and u is not output for u in node.users)
        ]

    with (
        patch.object(partitioners, "choose_saved_values_set", crossing),
        patch.object(partitioners, "reordering_to_mimic_autograd_engine", lambda module: module),
        config.patch(cse=False),
    ):
        found: tuple[fx.GraphModule, fx.GraphModule] = (
            partitioners.min_cut_rematerialization_partition(joint_module, inputs, **options)
        )
    return found
