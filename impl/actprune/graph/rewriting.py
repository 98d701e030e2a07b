"""The joint graph in which stores stand for values, and what is computed again is written out."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
import torch._functorch.config as config
from torch import Tensor, fx
from torch._functorch import partitioners

from actprune.formats import Codes, parse
from actprune.graph.options import BITS, NARROW, narrow_of
from actprune.graph.plan import ABSENT, KEEP, OFFLOAD, RECOMPUTE
from actprune.graph.values import Joint, Value, hint
from actprune.saved.stores import group_of

_aten: Any = torch.ops.aten
_ours: Any = torch.ops.actprune
_BEFORE = "actprune_before"
"""In a node's meta: it belongs to the forward pass."""


class Rewriting:
    """Lets the backward part of a joint graph read stores and what is computed from them."""

    def __init__(self, joint: Joint, choices: Mapping[str, str]) -> None:
        self.joint, self.choices, self.graph = joint, choices, joint.graph
        self.inside: dict[fx.Node, fx.Node] = {}
        """By node of the forward pass: what the backward pass reads instead."""

    def run(self) -> None:
        """Rewrite the graph."""
        for node in list(self.graph.nodes):
            if node in self.joint.backward and node.op == "call_function":
                for part in node.all_input_nodes:
                    if part in self.joint.values:
                        node.replace_input_with(part, self.read(part, node))
        (output,) = self.graph.find_nodes(op="output")
        results = list(output.args[0])  # type: ignore[arg-type]
        for place in range(self.joint.count, len(results)):
            if results[place] in self.joint.values:
                results[place] = self.read(results[place], output)  # type: ignore[arg-type]
        output.args = (tuple(results),)
        for node in self.graph.nodes:
            node.meta.pop("recompute", None)

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
            parts = [] if held else [p for p in node.all_input_nodes if p in self.joint.values]
            missing = [part for part in parts if part not in self.inside]
            if missing:
                stack += missing
                continue
            stack.pop()
            self.inside[node] = self._held(value, choice, before) if held else self._again(node, before)
        return self.inside[wanted]

    def _again(self, node: fx.Node, before: fx.Node) -> fx.Node:
        with self.graph.inserting_before(before):
            made = self.graph.node_copy(node, lambda part: self.inside.get(part, part))
        return _placed(made, "is_backward")

    def _held(self, value: Value, choice: str, before: fx.Node) -> fx.Node:
        tensor = value.tensor
        assert tensor is not None
        if choice == KEEP:
            value.node.meta[_BEFORE] = True
            return value.node
        if choice == BITS:
            kept = self._store(value, _ours.pack_bits.default, (value.node,))
            return self._restored(value, before, _ours.unpack_bits.default, (kept, *self._layout(value)))
        if choice == NARROW:
            dtype = narrow_of(value)
            kept = self._store(value, _aten._to_copy.default, (value.node,), {"dtype": dtype})
            back = {"dtype": torch.int64}
            return self._restored(value, before, _aten._to_copy.default, (kept,), back)
        if choice == OFFLOAD:
            kept = self._store(value, _ours.offload.default, (value.node,))
            return self._restored(value, before, _ours.reload.default, (kept, tensor.device))
        format = parse(choice)
        assert isinstance(format, Codes)
        group = group_of([hint(n) for n in tensor.shape], [hint(n) for n in tensor.stride()], format.group)
        kept = self._store(value, _ours.pack.default, (value.node, format.bits, group))
        args = (kept, format.bits, group, *self._layout(value), tensor.dtype)
        return self._restored(value, before, _ours.unpack.default, args)

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
        with self.graph.inserting_after(value.node):
            made = self.graph.call_function(function, (value.node, dim))
        made.meta["val"] = size
        made.meta[_BEFORE] = True
        return _placed(made, "is_forward")

    def _store(self, value: Value, function: Any, args: Any, kwargs: Any = None) -> fx.Node:
        with self.graph.inserting_after(value.node):
            made = self.graph.call_function(function, args, kwargs or {})
        made.meta["val"] = _result(function, args, kwargs or {})
        made.meta[_BEFORE] = True
        return _placed(made, "is_forward")

    def _restored(
        self, value: Value, before: fx.Node, function: Any, args: Any, kwargs: Any = None
    ) -> fx.Node:
        with self.graph.inserting_before(before):
            made = self.graph.call_function(function, args, kwargs or {})
        made.meta["val"] = value.tensor
        return _placed(made, "is_backward")


def _placed(node: fx.Node, tag: str) -> fx.Node:
    node.meta["partitioner_tag"] = tag
    return node


def _result(function: Any, args: Any, kwargs: Any) -> Tensor:
    real = [part.meta["val"] if isinstance(part, fx.Node) else part for part in args]
    mode = next(part.fake_mode for part in real if isinstance(part, Tensor))
    with mode:
        found: Tensor = function(*real, **kwargs)
    return found


def split(
    joint_module: fx.GraphModule, inputs: Any, **options: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return the two passes of a joint graph that was rewritten, by torch's own partitioner.

    It is told what to keep, where it would choose.
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
        gradients = set(output.args[0][options["num_fwd_outputs"] :])  # type: ignore[index]
        return [
            node
            for node in graph.nodes
            if node in before
            if node in gradients or any(u not in before and u is not output for u in node.users)
        ]

    with patch.object(partitioners, "choose_saved_values_set", crossing), config.patch(cse=False):
        found: tuple[fx.GraphModule, fx.GraphModule] = (
            partitioners.min_cut_rematerialization_partition(joint_module, inputs, **options)
        )
    return found
