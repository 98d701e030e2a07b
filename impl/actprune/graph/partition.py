"""A partition function for AOTAutograd: what the forward pass keeps, chosen by a plan."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch._functorch import partitioners
from torch._functorch.compile_utils import fx_graph_cse

from actprune.budget.choices import AGAIN, Choice, Item
from actprune.budget.solver import solve
from actprune.graph.options import Chosen, Errors, default_formats, items, kinds_of
from actprune.graph.plan import ABSENT, RECOMPUTE, Entry, GraphPlan
from actprune.graph.rewriting import Rewriting, split
from actprune.graph.schedule import timeline
from actprune.graph.values import Joint, Value


@dataclass(frozen=True)
class Settings:
    """What a partition goes by.

    Args:
        budget: Bytes that may be held, or a share of what torch's own partitioner keeps.
        error: Of the gradients, at most, as predicted.
        chosen: The formats that a value may take.
        errors: What is known of errors.
    """

    budget: int | float | None = None
    error: float | None = None
    chosen: Chosen = default_formats
    errors: Errors = field(default_factory=Errors)


def partition(
    joint_module: fx.GraphModule,
    inputs: Any,
    settings: Settings,
    given: Mapping[str, GraphPlan],
    **options: Any,
) -> tuple[fx.GraphModule, fx.GraphModule, GraphPlan]:
    """Return the two passes and the plan by which they were made."""
    count = options["num_fwd_outputs"]
    joint_module.graph.eliminate_dead_code()
    joint_module.graph = fx_graph_cse(joint_module.graph)
    twin = fx.GraphModule(joint_module, copy.deepcopy(joint_module.graph))
    twin.meta.update(joint_module.meta)
    before = partitioners.min_cut_rematerialization_partition(twin, inputs, **options)
    dense = timeline(before[0].graph, before[1].graph, count)
    joint = Joint(joint_module.graph, count)
    values = joint.needed()
    found = items(joint, values, settings.chosen, settings.errors)
    budget = settings.budget
    if isinstance(budget, float):
        budget = int(budget * dense.held)
    bound = None if settings.error is None else settings.error**2
    choice = solve(found, budget=budget, error=bound)
    entries = tuple(map(entry, values, found, choice.options, choice.levels))
    Rewriting(joint, {each.name: each.choice for each in entries}).run()
    forward, backward = split(joint_module, inputs, **options)
    planned = timeline(forward.graph, backward.graph, count)
    made = GraphPlan(
        key=key_of(joint.graph),
        entries=entries,
        budget=budget,
        dense=dense.held,
        held=planned.held,
        dense_peak=dense.peak,
        peak=planned.peak,
        gap=choice.gap,
        timeline=planned.forward + planned.backward,
        dense_timeline=dense.forward + dense.backward,
        forward=len(planned.forward),
        dense_forward=len(dense.forward),
    )
    return forward, backward, made


def entry(value: Value, item: Item, option: int | None, level: int) -> Entry:
    """Return what was chosen for a value."""
    name, held, time, error = ABSENT, 0, 0.0, 0.0
    if option == AGAIN:
        assert item.again is not None
        name, time, error = RECOMPUTE, item.again.seconds, item.again.errors[level]
    elif option is not None:
        one = item.options[option]
        name, held, time, error = one.name, one.nbytes, one.seconds, one.error
    return Entry(
        name=value.node.name,
        module=module_of(value.node),
        producer=str(value.node.target),
        kinds=kinds_of(value),
        nbytes=value.nbytes,
        choice=name,
        held=held,
        seconds=time,
        error=error,
    )


def module_of(node: fx.Node) -> str:
    """Return the name of the module whose forward made a node; empty where nothing tells."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    name = str(list(stack.values())[-1][0])
    return name


def key_of(graph: fx.Graph) -> str:
    """Return a digest of a graph's operators, whatever the sizes."""
    text = "\n".join(f"{node.op} {node.target}" for node in graph.nodes)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_ = Choice
