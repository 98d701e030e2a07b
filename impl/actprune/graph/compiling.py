"""The backend for torch.compile that carries plans out."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import boxed_nop
from torch._guards import CompileContext

from actprune.formats import Codes, Dense, Derivative, Format
from actprune.graph.inductor import RefusedError, compile_by_inductor
from actprune.graph.limits import Limit, limit_of
from actprune.graph.naming import module_of, reader_of
from actprune.graph.options import Errors, Formats, kind_of
from actprune.graph.partition import Partition, Settings
from actprune.graph.plan import GraphPlan, Plan
from actprune.graph.reading import load
from actprune.graph.values import Value, passed_activations
from actprune.saved.rules import AT, THEN, Rule, read_rules, rule_of
from actprune_common.errors import InputError, check_one_of, expected

COMPILERS = ("inductor", "aot_eager")


class Backend:
    """What torch.compile calls for each graph of a model.

    `plan` is what was decided so far. A graph that is compiled again, for another batch size, keeps
    its plan where that is within the limits.

    Example:
        >>> planned = actprune.graph.backend("@*=>codes:bits=8", compiler="aot_eager")
        >>> print(planned.plan)
        no graphs
    """

    def __init__(self, settings: Settings, compiler: str) -> None:
        self.settings, self.compiler = settings, compiler
        self.plans: dict[str, GraphPlan] = {}
        """By the key of a graph, in the order of compilation."""
        self._held: dict[Any, int] = {}
        """By torch's number of a compilation: bytes that its graphs hold."""

    def __deepcopy__(self, _: Any) -> "Backend":
        """Return itself: Lightning copies what torch.compile is given, and plans are told here."""
        return self

    @property
    def plan(self) -> Plan:
        """What is kept of each tensor, in the graphs that were compiled so far."""
        return Plan(tuple(self.plans.values()))

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any], **_: Any) -> Any:
        """Compile a graph. Raises InputError where no plan is within the limits."""
        partition = partial(self.partition, passed=passed_activations(inputs))
        if self.compiler == "aot_eager":
            run: Any = aot_autograd(
                fw_compiler=boxed_nop,
                bw_compiler=boxed_nop,
                partition_fn=partition,
                keep_inference_input_mutations=True,
            )
            return run(module, inputs)
        return compile_by_inductor(module, inputs, partition)

    def partition(
        self, joint: fx.GraphModule, inputs: Any, *, passed: Collection[int], **options: Any
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Return the two passes of a joint graph.

        passed: as `Partition` takes them.
        """
        compiled = self.compiler == "inductor"
        part = Partition(joint, inputs, compiled=compiled, passed=passed, **options)
        try:
            known = self.plans.get(part.key)
            planned = part.planned(self.settings, known, self._others())
        except InputError as problem:
            raise RefusedError(str(problem)) from None
        self.plans[part.key] = planned.plan
        now = CompileContext.current_compile_id()
        self._held[now] = self._held.get(now, 0) + planned.plan.held
        return planned.passes

    def _others(self) -> int:
        """Return what other graphs hold beside this one.

        What a frame of Python code was compiled to before, for other sizes, this one replaces.
        """
        now, most = CompileContext.current_compile_id(), dict[Any, int]()
        for compiled, size in self._held.items():
            frame = _frame(compiled)
            if compiled == now or frame != _frame(now):
                most[frame] = max(size, most.get(frame, 0))
        return sum(most.values())


def _frame(compiled: Any) -> Any:
    return getattr(compiled, "frame_id", None)


def backend(
    keep: Limit = None,
    *,
    rules: Sequence[Rule] = (),
    budget: Limit = None,
    peak: Limit = None,
    error: float | None = None,
    errors: Errors | None = None,
    plan: Plan | str | Path | None = None,
    offload: bool = False,
    compiler: str = "inductor",
) -> Backend:
    """Return a backend for torch.compile that keeps, computes again or compresses each tensor.

    torch's own partitioner says what a graph keeps between its passes. With a budget a solver
    decides what of that is kept, computed again, or held in few bits, for the least time.

    Args:
        keep: a budget, or a spec of rules, "@*=>codes:bits=4". Rules alone say what stands for
            each tensor that torch keeps; with a budget, what may.
        rules: the same as a spec, read.
        budget: bytes that may be held between the passes, "64MiB", or a float: a share of what
            torch's partitioner keeps. Bytes are for all graphs of a model together, and go to them
            in the order in which they are compiled; of a share each has its own.
        peak: the same of all that is alive at once in both passes beside parameters and inputs,
            as predicted.
        error: of the gradients, ‖ĝ - g‖ / ‖g‖, at most, as predicted.
        errors: what `profile` measured; without it what formats err on normal numbers.
        plan: one to follow, or the path of its text.
        offload: whether tensors may go to the host's memory; on a GPU alone, where unmeasured.
        compiler: what makes code of the graphs: "inductor", or "aot_eager", which runs them as
            they are.

    Returns:
        What `torch.compile(model, backend=...)` takes; its `plan` tells what was decided.

    Raises:
        InputError: an argument is wrong. When the model is first called: nothing is within the
            limits, and the text says the least; or a plan is of another graph.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        >>> planned = actprune.graph.backend(0.2, compiler="aot_eager")
        >>> step = torch.compile(model, backend=planned)
        >>> step(torch.randn(512, 64)).sum().backward()
        >>> planned.plan.held < 0.2 * planned.plan.dense
        True
    """
    check_one_of("compiler", compiler, COMPILERS)
    if isinstance(keep, str) and not _is_size(keep):
        spec: str | None = keep
    else:
        spec = None
        if keep is not None and budget is not None:
            raise InputError(f"budget: given twice, {keep!r} and {budget!r}")
        budget = keep if budget is None else budget
    if error is not None and not error > 0:
        raise expected("error", "a number above 0", error)
    rules = rules if spec is None else _rules(spec)
    followed = load(plan) if isinstance(plan, str | Path) else plan
    settings = Settings(
        budget=limit_of("budget", budget),
        peak=limit_of("peak", peak),
        error=error,
        formats=_formats(rules) if rules else None,
        ruled=bool(rules) and budget is None and peak is None,
        errors=errors or Errors(),
        given={} if followed is None else {graph.key: graph for graph in followed.graphs},
        offload=offload,
    )
    return Backend(settings, compiler)


def plan_of(model: nn.Module) -> Plan:
    """Return what was decided for a model to which a spec such as compile(0.1)+dense was applied.

    Args:
        model: such a model, or one around it, such as DDP. A copy of it is not compiled.

    Returns:
        The plans of the graphs that were compiled so far: none before the first call.

    Raises:
        InputError: no such spec was applied; compile+dense is torch's own, and has no plan.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> model = actprune.apply(model, "compile(0.5)+dense")
        >>> print(actprune.graph.plan_of(model))  # the first call compiles
        no graphs
    """
    for module in model.modules():
        compiled = getattr(module, "_compiled_call_impl", None)
        found = getattr(compiled, "actprune_backend", None)
        if isinstance(found, Backend):
            return found.plan
    what = "one to which a spec with a budget or rules was applied, such as compile(0.1)+dense"
    raise expected("model", what, f"{type(model).__name__} without")


def _is_size(text: str) -> bool:
    return THEN not in text and AT not in text and (text[:1].isdigit() or text[:1] in ".-+")


def _rules(spec: str) -> list[Rule]:
    """Raises InputError."""
    found = read_rules(spec)
    if not all(AT in target or isinstance(format, Dense) for target, format in found):
        raise InputError(f"spec: expected rules with @, such as '@*=>codes:bits=4', got {spec!r}")
    rules = [rule_of(target, format) for target, format in found if AT in target]
    if any(isinstance(rule.format, Derivative) for rule in rules):
        raise InputError(f"spec: derivative serves no compiled graph, got {spec!r}")
    return rules


def _formats(rules: Sequence[Rule]) -> Formats:
    """What the rules say of a value: of several readers, what keeps most."""

    def formats(value: Value) -> Sequence[Format]:
        asked = [_ruling(rules, value, node) for node, _ in value.readers]
        if not asked:  # it serves to compute others again
            asked = [rule.format for rule in rules if isinstance(rule.format, Codes)]
            return asked[-1:]
        if any(isinstance(format, Dense) for format in asked):
            return ()
        return tuple(sorted(asked, key=_fineness)[-1:])

    return formats


def _fineness(format: Format) -> int:
    return format.bits if isinstance(format, Codes) else 0


def _ruling(rules: Sequence[Rule], value: Value, node: fx.Node) -> Format:
    module, kind = reader_of(node) or module_of(value.node), kind_of(node)
    return next((rule.format for rule in rules if rule.names(module, kind)), Dense())
