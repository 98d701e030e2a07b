"""The backend for torch.compile."""

from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd

from actprune.graph.partition import Settings, partition
from actprune.graph.plan import GraphPlan, Plan


class Backend:
    def __init__(self, settings: Settings, compiler: str) -> None:
        self.settings, self.compiler = settings, compiler
        self.graphs: list[GraphPlan] = []

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.graphs))

    def __call__(self, module: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        if self.compiler == "aot_eager":
            return aot_autograd(
                fw_compiler=_boxed, bw_compiler=_boxed, partition_fn=self._partition, keep_inference_input_mutations=True
            )(module, inputs)
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx

        with config.patch(custom_partitioner_fn=_partitioner(self._partition)):
            return compile_fx(module, inputs)

    def _partition(self, joint: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        forward, backward, made = partition(joint, inputs, self.settings, {}, **options)
        self.graphs.append(made)
        return forward, backward


def _boxed(module: fx.GraphModule, _: Any) -> Any:
    def run(args: Any) -> Any:
        return torch.fx.Interpreter(module).boxed_run(args)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _partitioner(function: Any) -> Any:
    from torch._inductor.custom_graph_pass import CustomPartitionerFn

    class Partitioner(CustomPartitionerFn):
        def __call__(self, gm: Any, joint_inputs: Any, **kwargs: Any) -> Any:
            return function(gm, joint_inputs, **kwargs)

        def uuid(self) -> None:
            return None

    return Partitioner()


def backend(spec: str | None = None, *, budget: int | float | None = None, error: float | None = None, compiler: str = "inductor") -> Backend:
    return Backend(Settings(budget, error), compiler)
