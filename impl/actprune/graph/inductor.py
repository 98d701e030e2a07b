"""Graphs compiled by inductor, their joint graphs partitioned by a function of ours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch._functorch.config as functorch
from torch import fx
from torch._dynamo.exc import ShortenTraceback

from actprune_common.errors import InputError


class RefusedError(InputError, ShortenTraceback):
    """A plan cannot be made: torch.compile passes it on as it is."""

    def __init__(self, text: str) -> None:
        ShortenTraceback.__init__(self, text, first_useful_frame=None)
        self.text = text

    def __str__(self) -> str:
        """The text alone: torch.compile adds to the arguments how to debug it."""
        return self.text


def compile_by_inductor(
    module: fx.GraphModule,
    inputs: Sequence[Any],
    partition: Callable[..., Any],
    inner: Callable[..., Any] | None = None,
) -> Any:
    """Return a compiled graph.

    Args:
        module, inputs: as torch.compile gives them to a backend.
        partition: from a joint graph to its two passes.
        inner: what compiles a pass, in place of inductor.

    Raises:
        InputError: there is no C++ compiler.
    """
    config = import_module("torch._inductor.config")
    compile_fx = import_module("torch._inductor.compile_fx").compile_fx
    options = {} if inner is None else {"inner_compile": inner}
    # it would lay out what convolutions take otherwise, and hold the copies: eight times the budget
    laid_out = {"layout_optimization": False}
    # and that cache would hold the passes of a joint graph, whatever the budget
    with (
        config.patch(custom_partitioner_fn=_partitioner(partition), **laid_out),
        functorch.patch(enable_autograd_cache=False),
        _compiler_errors(),
    ):
        return compile_fx(module, inputs, **options)


def _partitioner(partition: Callable[..., Any]) -> Any:
    """What inductor's configuration takes. Its caches of compiled graphs stay of use."""
    base = import_module("torch._inductor.custom_graph_pass").CustomPartitionerFn

    class Partitioner(base):  # type: ignore[misc,valid-type]
        def __call__(self, gm: fx.GraphModule, joint_inputs: Any, **options: Any) -> Any:
            return partition(gm, joint_inputs, **options)

        def uuid(self) -> str:
            return "actprune"

        def __reduce__(self) -> tuple[Any, ...]:
            return str, ("actprune",)  # into the keys of these caches

    return Partitioner()


@contextmanager
def _compiler_errors() -> Iterator[None]:
    """A compiler that is missing is said in one line."""
    missing = import_module("torch._inductor.exc").InvalidCxxCompiler
    try:
        yield
    except RuntimeError as problem:
        if not isinstance(getattr(problem, "inner_exception", problem), missing):
            raise
        raise RefusedError(
            "compiler: expected a C++ compiler for inductor, such as g++, found none; "
            'compiler="aot_eager" does without'
        ) from None
