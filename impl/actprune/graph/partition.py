"""A partition function for AOTAutograd, which chooses what the forward pass keeps."""

import copy
import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch._functorch.config as functorch
from torch import fx
from torch._functorch import partitioners
from torch._functorch.compile_utils import fx_graph_cse
from torch._ops import OpOverload
from torch.fx._lazy_graph_module import _make_graph_module, _use_lazy_graph_module

from actprune.formats import Format
from actprune.graph.costs import seconds
from actprune.graph.deciding import by_names, unknown
from actprune.graph.naming import module_of, number
from actprune.graph.options import Errors, Formats, GraphErrors, items, kinds_of
from actprune.graph.ordering import early
from actprune.graph.plan import ABSENT, RECOMPUTE, Entry, GraphPlan
from actprune.graph.relieving import relieve
from actprune.graph.reusing import reuse
from actprune.graph.rewriting import Rewriting, split
from actprune.graph.schedule import Timeline, runs, timeline, timeline_of
from actprune.graph.searching import Limits, Made, Search
from actprune.graph.simplifying import ADDED, simplify
from actprune.graph.values import Joint, Value, mark, tensors
from actprune.solver.items import AGAIN, Choice, Item
from actprune.solver.search import least
from actprune_common.errors import InputError, expected

_SMALL = 2**14
"""Bytes up to which a graph may hold the least that it can, where that is more than its share."""
_FOR_FREE, _FOR_A_LIMIT = 0.01, 0.2
"""What may be added to a step for a lower peak that nobody asked for, and to be within a limit."""


@dataclass(frozen=True)
class Settings:
    """What a partition goes by.

    Args:
        budget: Bytes that may be held, or a share of what torch's own partitioner keeps.
        peak: Bytes that may be alive at once in both passes, or a share of what is with torch's.
        error: Of the gradients, ‖ĝ - g‖ / ‖g‖, at most, as predicted.
        formats: Those that a value may take.
        ruled: Whether each value takes the first of its formats, and no solver is asked.
        errors: What is known of errors.
        given: Plans to follow, by the key of a graph.
        offload: Whether values on a GPU may go to the host's memory.
    """

    budget: int | float | None = None
    peak: int | float | None = None
    error: float | None = None
    formats: Formats | None = None
    ruled: bool = False
    errors: Errors = field(default_factory=Errors)
    given: dict[str, GraphPlan] = field(default_factory=dict)
    offload: bool = False


class Partition:
    """The two passes of one joint graph, and the plan by which they were made.

    Args:
        joint_module, inputs, options: as AOTAutograd gives them to a partition function.
        compiled: whether code is made of the passes, which then writes over what it reads last by
            itself; else they run operator by operator.
        passed: the places among the inputs of activations, which other graphs made: they can be
            freed between the passes, unless this one keeps them.
    """

    @_use_lazy_graph_module(True)  # code is made of what runs alone
    def __init__(
        self,
        joint_module: fx.GraphModule,
        inputs: Any,
        *,
        compiled: bool,
        passed: Collection[int] = (),
        **options: Any,
    ) -> None:
        self.inputs, self.options, self.compiled = inputs, options, compiled
        self.count: int = options["num_fwd_outputs"]
        joint_module.graph.eliminate_dead_code()
        joint_module.graph = fx_graph_cse(joint_module.graph)
        number(joint_module.graph)
        mark(joint_module.graph, passed)
        with functorch.patch(cse=False):
            self.dense = partitioners.min_cut_rematerialization_partition(
                _copy(joint_module), inputs, **options
            )
        graphs = self.dense[0].graph, self.dense[1].graph
        # run operator by operator, torch's passes write over nothing; ours do
        self.dense_timeline = timeline(*graphs, self.count, reuse=compiled)
        self.module = joint_module
        self.joint = simplify(joint_module.graph, self.count)
        self.values = self.joint.needed()
        self.key = key_of(self.joint, options.get("static_lifetime_input_indices") or ())

    def planned(self, settings: Settings, known: GraphPlan | None, others: int) -> Made:
        """Return the passes and the plan.

        known: a plan of an earlier compilation of this graph, which is followed where it fits.
        others: bytes that other graphs of the model hold.

        Raises InputError where nothing is within the settings' limits.
        """
        budget = self._bytes(settings.budget, self.dense_timeline.held)
        if isinstance(settings.budget, int):
            budget = settings.budget - others
        limit = self._bytes(settings.peak, self.dense_timeline.peak)
        errors, formats = settings.errors.of(self.key), settings.formats
        if formats is None and settings.error is not None and errors.formats:
            formats = partial(_measured, errors)
        offload = settings.offload and not settings.ruled
        found = items(self.joint, self.values, formats, errors, offload=offload)
        if isinstance(settings.budget, float) and budget is not None and budget < _SMALL:
            fewest = least(found)
            budget = fewest if budget < fewest <= _SMALL else budget
        given = settings.given.get(self.key)
        limits = Limits(budget, limit, settings.error)
        if settings.given and given is None:
            raise expected("plan", f"a graph of {', '.join(settings.given)}", self.key)
        if given is not None:
            return limits.checked(self.made(found, self._followed(found, given), budget), "plan")
        if known is not None:
            with suppress(InputError):  # at other sizes, some choices are none
                made = self.made(found, self._followed(found, known), budget)
                if limits.allow(made.plan):
                    return made
        if settings.ruled:
            return limits.checked(self.made(found, self._of_torch(found, -1), budget), "spec")
        if budget is None and limit is None:
            choice = self._of_torch(found, 0)
            plan = self._plan(self._entries(found, choice), choice, None, self.dense_timeline)
            return Made(self.dense, plan, tuple)
        search = Search(found, limits, self.dense_timeline.held, errors.measured)
        whole = sum(seconds(node) for node in self.module.graph.nodes)
        allowed = (_FOR_A_LIMIT if limit else _FOR_FREE) * whole
        return search.best(lambda choice: self.made(found, choice, budget, limit or 0, allowed))

    @staticmethod
    def _bytes(limit: int | float | None, dense: int) -> int | None:
        return int(limit * dense) if isinstance(limit, float) else limit

    def _followed(self, found: list[Item], plan: GraphPlan) -> Choice:
        choices = {each.name: each.choice for each in plan.entries}
        missing = unknown(found, choices)
        if missing:
            known = ", ".join(item.name for item in found)
            raise InputError(
                f"plan: the graph {self.key} has no tensor {missing[0]!r}; known: {known}"
            )
        return by_names(found, choices)

    def _of_torch(self, found: list[Item], store: int) -> Choice:
        """What torch's partitioner keeps is held by the option of this place, -1 for the last."""
        (output,) = self.dense[0].graph.find_nodes(op="output")
        names = {part.name for part in output.args[0][self.count :] if isinstance(part, fx.Node)}
        choices = {
            item.name: item.options[store].name
            for value, item in zip(self.values, found, strict=True)
            if item.options and any(node.name in names for node in value.nodes)
        }
        return by_names(found, choices)

    @_use_lazy_graph_module(True)
    def made(
        self,
        found: list[Item],
        choice: Choice,
        budget: int | None,
        limit: int = 0,
        allowed: float = 0.0,
    ) -> Made:
        """Return the passes and the plan of a choice.

        limit, allowed: as `relieve` takes them.
        """
        entries = self._entries(found, choice)
        module = _copy(self.module)
        joint = Joint(module.graph, self.count)
        Rewriting(joint, {each.name: each.choice for each in entries}).run()
        passes = split(module, self.inputs, **self.options)
        graphs = passes[0].graph, passes[1].graph
        early(graphs[1])
        first, second = runs(*graphs, self.count, reuse=True)
        if allowed:
            relieve(first, graphs[1], self.count, limit, allowed)
            second = first.then(graphs[1], self.count)
        plan = self._plan(entries, choice, budget, timeline_of(first, second, self.count))
        if not self.compiled:
            reuse(first)
            reuse(second)
        for module in passes:
            module.recompile()
        return Made(passes, plan, second.moments)

    def _entries(self, found: list[Item], choice: Choice) -> tuple[Entry, ...]:
        parts = zip(self.values, found, choice.options, choice.levels, strict=True)
        return tuple(_entry(*each) for each in parts)

    def _plan(
        self, entries: tuple[Entry, ...], choice: Choice, budget: int | None, planned: Timeline
    ) -> GraphPlan:
        dense = self.dense_timeline
        return GraphPlan(
            key=self.key,
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


def _measured(errors: GraphErrors, _: Value) -> Sequence[Format]:
    return errors.formats


def _copy(module: fx.GraphModule) -> fx.GraphModule:
    twin = _make_graph_module(module, copy.deepcopy(module.graph))
    twin.meta.update(module.meta)
    return twin


def _entry(value: Value, item: Item, option: int | None, level: int) -> Entry:
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
        producer="input" if value.node.op == "placeholder" else str(value.node.target),
        kinds=kinds_of(value),
        nbytes=value.nbytes,
        choice=name,
        held=held,
        seconds=time,
        error=error,
    )


def key_of(joint: Joint, parameters: Sequence[int]) -> str:
    """Return a digest of a graph's operators, modules and parameters, whatever the batch size.

    parameters: their places among the inputs.
    """
    values = dict.fromkeys(joint.values.values())
    lines = [f"{value.node.name} {value.node.target} {module_of(value.node)}" for value in values]
    made = (n for n in joint.backward if isinstance(n.target, OpOverload))
    names = (n.meta.get(ADDED, str(n.target)) for n in made if any(True for _ in tensors(n)))
    lines += [name for name in names if name]
    given = [next(tensors(joint.placeholders[place]), None) for place in parameters]
    lines += [f"{place} {tuple(t.shape)}" for place, t in enumerate(given) if t is not None]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
