"""What errors of each tensor do to the gradients, measured on one batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, random
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import boxed_nop
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_leaves

from actprune.formats import Codes, Format, parse
from actprune.graph.deciding import by_names
from actprune.graph.inductor import compile_by_inductor
from actprune.graph.options import CANDIDATES, Errors, GraphErrors, is_codable, items
from actprune.graph.partition import Partition
from actprune.graph.plan import KEEP, RECOMPUTE
from actprune.graph.products import group_for
from actprune.graph.values import passed_activations
from actprune_common.errors import InputError
from actprune_kernels import codes


def profile(
    fn: Callable[..., Any],
    *args: Any,
    candidates: Iterable[str | Format] = (*CANDIDATES, "codes:bits=2"),
    compiler: str = "inductor",
    **kwargs: Any,
) -> Errors:
    """Measure what errors of the tensors that the backward pass reads do to the gradients.

    `fn` is compiled and run once; then the backward pass of each of its graphs runs once more for
    every tensor that can be held in few bits, with that tensor alone decoded from its codes.

    Args:
        fn: what will be compiled: a model, or a function of one that returns its loss. It stays as
            it is: gradients, random state, and the buffers that a graph with gradients updates.
        args: of one call, of a batch that may be smaller than those to come.
        candidates: the codes that are measured, which a plan may use where its error is bounded.
        compiler: that of the backend, which decides into what operators a model is taken apart.
        kwargs: of the call.

    Returns:
        What `backend` takes as `errors`.

    Raises:
        InputError: nothing that `fn` returns has a gradient, or a candidate is no codes.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        >>> batch = torch.randn(512, 64)
        >>> errors = actprune.graph.profile(model, batch, compiler="aot_eager")
        >>> planned = actprune.graph.backend(0.2, error=0.1, errors=errors, compiler="aot_eager")
        >>> torch.compile(model, backend=planned)(batch).sum().backward()
        >>> planned.plan.graphs[0].error < 0.1
        True
    """
    formats = [parse(candidate) for candidate in candidates]
    for format in formats:
        if not isinstance(format, Codes):
            raise InputError(
                f"candidates: expected codes, such as codes:bits=4, got {format.spec!r}"
            )
    recorder = _Recorder([format for format in formats if isinstance(format, Codes)], compiler)
    torch._dynamo.reset()
    try:
        with random.fork_rng(_devices()):
            _backward(torch.compile(fn, backend=recorder)(*args, **kwargs))
    finally:
        recorder.put_back()
        torch._dynamo.reset()
    return Errors(recorder.found)


def _backward(out: Any) -> None:
    """Run the backward pass, and leave no gradients anywhere. Raises InputError without one."""
    parts = [part for part in tree_leaves(out) if isinstance(part, Tensor) and part.requires_grad]
    if not parts:
        raise InputError("fn: nothing that it returns has a gradient")
    whole = [part.float().square().mean() if part.dim() else part.float() for part in parts]
    loss = torch.stack([part.to(whole[0].device) for part in whole]).sum()
    leaves: list[Tensor] = []
    stack: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [following for following, _ in node.next_functions]
            leaves += [node.variable] if type(node).__name__ == "AccumulateGrad" else []
    torch.autograd.grad(loss, leaves, allow_unused=True)


def _devices() -> list[int]:
    """Those with a random state of their own."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


class _Recorder:
    """A backend that keeps every tensor, and measures in the backward pass."""

    def __init__(self, formats: Sequence[Codes], compiler: str) -> None:
        self.formats, self.compiler = formats, compiler
        self.found: dict[str, GraphErrors] = {}
        self.written: list[tuple[Tensor, Tensor]] = []
        """What forward passes write to, and its content before."""

    def __deepcopy__(self, _: Any) -> "_Recorder":
        """Return itself: Lightning copies what torch.compile is given."""
        return self

    def put_back(self) -> None:
        """Give what the forward passes wrote to its former content."""
        with torch.no_grad():
            for tensor, before in reversed(self.written):
                tensor.copy_(before)

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any], **_: Any) -> Any:
        """Return what runs a graph and measures it."""
        trial = _Trial(self.formats, self.found, self.written, passed_activations(inputs))
        if self.compiler == "inductor":
            return compile_by_inductor(module, inputs, trial.partition, trial.inner)
        compiled: Any = aot_autograd(
            fw_compiler=trial.forward,
            bw_compiler=trial.backward,
            inference_compiler=boxed_nop,
            partition_fn=trial.partition,
            keep_inference_input_mutations=True,
        )
        return compiled(module, inputs)


class _Trial:
    """One graph with the tensors of one batch."""

    def __init__(
        self,
        formats: Sequence[Codes],
        found: dict[str, GraphErrors],
        written: list[tuple[Tensor, Tensor]],
        passed: Sequence[int],
    ) -> None:
        self.formats, self.found, self.written, self.passed = formats, found, written, passed
        self.inputs: dict[str, Any] = {}
        """Of both passes, by the names of their inputs."""
        self.before: dict[str, Tensor] = {}
        """The content of those that the forward pass writes to."""
        self.state: list[Tensor] = []
        """Of random numbers, before the forward pass."""
        self.exact: tuple[list[int], list[Any]] = [], []
        """Gradients without errors, and the versions of the inputs that they are of."""

    def partition(self, joint: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        """Return passes between which everything is kept."""
        # as if for a compiler: what runs here is read again, and nothing may be written over
        self.part = Partition(joint, inputs, compiled=True, passed=self.passed, **options)
        self.items = items(self.part.joint, self.part.values, lambda _: self.formats, GraphErrors())
        self.kept = {item.name: KEEP for item in self.items if item.options}
        return self._passes(self.kept)

    def _passes(self, choices: Mapping[str, str]) -> tuple[fx.GraphModule, fx.GraphModule]:
        stores = {item.name: {option.name for option in item.options} for item in self.items}
        fitting = {name: choice for name, choice in choices.items() if choice != RECOMPUTE}
        for name, choice in fitting.items():
            if name in stores and choice not in stores[name]:  # it is too small in this batch
                fitting[name] = KEEP
        return self.part.made(self.items, by_names(self.items, fitting), None).passes

    def forward(self, module: fx.GraphModule, _: Any) -> Any:
        """Return what runs the forward pass."""

        def run(args: list[Any]) -> Any:
            self._take(module, args)
            self.state = _states()
            self.before = {name: self.inputs[name].clone() for name in changed & set(self.inputs)}
            self.written += [(self.inputs[name], part) for name, part in self.before.items()]
            return self._run(module, {})

        changed = {node.name for node in self.part.joint.changed}
        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    def backward(self, module: fx.GraphModule, _: Any) -> Any:
        """Return what runs the backward pass, and measures."""

        def run(args: list[Any]) -> Any:
            self._take(module, args)
            found = self._run(module, {})
            self._measure(module, found)
            return found

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    def inner(self, module: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        """Return what runs either pass, or a graph without gradients."""
        if options.get("is_inference"):
            return boxed_nop(module, inputs)
        return (self.backward if options.get("is_backward") else self.forward)(module, inputs)

    def _take(self, module: fx.GraphModule, args: list[Any]) -> None:
        self.inputs.update(zip(_names(module), args, strict=True))
        args.clear()

    def _run(self, module: fx.GraphModule, others: Mapping[str, Any]) -> list[Any]:
        args = [others.get(name, self.inputs.get(name)) for name in _names(module)]
        with torch.no_grad(), unset_fake_temporarily():
            return list(fx.Interpreter(module).run(*args))

    def _measure(self, module: fx.GraphModule, exact: list[Any]) -> None:
        whole, names = _square(exact), set(_names(module))
        weights: dict[str, float] = {}
        relative: dict[tuple[str, str], float] = {}
        for value in self.part.values:
            name = value.node.name
            if name not in names or not is_codable(value) or not whole:
                continue
            x = self.inputs[name]
            twins = {format: _decoded(x, format) for format in self.formats}
            for format, twin in twins.items():
                off = float((twin - x).double().norm())
                relative[name, format.spec] = off / (float(x.double().norm()) or 1.0)
            middle = min(self.formats, key=lambda format: abs(format.bits - 4))
            error = relative[name, middle.spec]
            if error:
                off = _square(self._run(module, {name: twins[middle]}), exact)
                weights[name] = off / whole / error**2
        self.found[self.part.key] = GraphErrors(weights, relative, self.error, self.formats)

    def error(self, choices: Mapping[str, str]) -> float:
        """Return ‖ĝ - g‖ / ‖g‖ of the gradients ĝ of the batch by a plan.

        Both are of the parameters as they are now.
        """
        tensors = (part for part in self.inputs.values() if isinstance(part, Tensor))
        versions = [part._version for part in tensors]
        if self.exact[0] != versions:
            self.exact = versions, self._gradients(self.kept)
        exact, whole = self.exact[1], _square(self.exact[1])
        return (_square(self._gradients(choices), exact) / whole) ** 0.5 if whole else 0.0

    def _gradients(self, choices: Mapping[str, str]) -> list[Any]:
        """What a plan gives for the batch."""
        forward, backward = self._passes(choices)
        (output,) = forward.graph.find_nodes(op="output")
        names = [part.name if isinstance(part, fx.Node) else "" for part in output.args[0]]
        with random.fork_rng(_devices()), unset_fake_temporarily():
            _draw_from(self.state)
            before = {name: part.clone() for name, part in self.before.items()}
            made = dict(zip(names, self._run(forward, before), strict=True))
        return self._run(backward, made)


def _states() -> list[Tensor]:
    """Of the random numbers of the CPU and of all other devices."""
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _devices())]


def _draw_from(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, device)


def _names(module: fx.GraphModule) -> list[str]:
    return [node.name for node in module.graph.find_nodes(op="placeholder")]


def _decoded(x: Tensor, format: Codes) -> Tensor:
    """A tensor as it is read from its codes."""
    coding, group = codes.backend(x.device), group_for(x, format)
    flat = x if torch.ops.aten.is_non_overlapping_and_dense(x) else x.contiguous()
    kept = coding.pack(flat, format.bits, group)
    found = coding.unpack(kept, format.bits, group, x.numel(), x.dtype)
    return found.as_strided(flat.shape, flat.stride())  # type: ignore[no-any-return]


def _square(found: Sequence[Any], exact: Sequence[Any] | None = None) -> float:
    """The sum of the squares of gradients, or of what they are off."""
    total = 0.0
    with torch.no_grad(), unset_fake_temporarily():
        for one, other in zip(found, exact or [None] * len(found), strict=True):
            if isinstance(one, Tensor) and one.is_floating_point():
                off = one if other is None else one - other
                total += float(torch.linalg.vector_norm(off, dtype=torch.float64)) ** 2
    return total
