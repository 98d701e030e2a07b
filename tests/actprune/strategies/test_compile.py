"""torch.compile of pruned models: one graph, one compilation, fewer bytes, the same gradients."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from actprune import saved_bytes
from actprune.strategies.grammar import apply, undo
from actprune_bench.measure.tolerance import relative_error
from actprune_bench.models import Block

SPECS = [
    "bsr:block=1x8,sparsity=0.75,scope=row,select=priority",
    "csr:sparsity=0.9",
    "lean+bsr:block=1x8,sparsity=0.75,select=priority",
    "lean-4bit+*fc2=>bsr:block=1x8,sparsity=0.5,values=int4;*=>csr:sparsity=0.5",
    "bf16+lean+bsr:block=1x8,sparsity=0.75",
    "checkpoint(block)+bsr:block=1x8,sparsity=0.75",
    "selective(block)+bsr:block=1x8,sparsity=0.75",
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()  # torch counts what it compiled of shared code
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


class Small(nn.Module):
    """A ResMLP block between two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(16, 16), Block(16, 9, 1.0), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.stem(x)).mean(1))
        return out


def model(spec: str) -> nn.Module:
    torch.manual_seed(0)
    return apply(Small(), spec)


def steps(module: nn.Module, forward: Callable[[Tensor], Tensor], count: int) -> list[Tensor]:
    """`count` steps of plain gradient descent on fresh batches; the last gradients."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        module.zero_grad()
        x = torch.randn(4, 9, 16, generator=generator)
        forward(x).square().mean().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.01)
    return [
        parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None
    ]


def held(out: Tensor, weights: nn.Module) -> int:
    """Bytes of the tensors that the graph behind `out` holds, found by walking it: no hooks."""
    storages: dict[int, int] = {}
    ours = {parameter.untyped_storage()._cdata for parameter in weights.parameters()}
    stack, seen = [out.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for tensor in getattr(node, "saved_tensors", ()):
            if tensor is not None:
                storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        stack += [function for function, _ in node.next_functions]
    return sum(size for key, size in storages.items() if key not in ours)


@pytest.mark.parametrize("spec", SPECS)
def test_fifty_steps_are_one_compilation_and_eager_s(spec: str) -> None:
    eager, twin = model(spec), model(spec)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(twin, fullgraph=True, backend=counter)
    ours, theirs = steps(twin, compiled, 50), steps(eager, eager, 50)
    assert counter.frame_count == 1
    for got, expected in zip(ours, theirs, strict=True):
        assert relative_error(got, expected) < (0.02 if "bf16" in spec else 1e-3)


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if not spec.startswith(("checkpoint", "selective"))]
)
def test_what_a_compiled_graph_holds_is_what_eager_saves(spec: str) -> None:
    x = torch.randn(4, 9, 16)
    pruned = model(spec)
    compiled = torch.compile(pruned, fullgraph=True, backend="aot_eager")
    out = compiled(x)
    kept = held(out, pruned)
    assert type(out.grad_fn).__name__ == "CompiledFunctionBackward"
    assert kept <= saved_bytes(pruned, x) * 1.02
    assert 0 < kept < saved_bytes(model("dense"), x) * (0.3 if "lean" in spec else 0.8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's tracer asks for it
def test_inductor_s_own_code() -> None:
    """The compiler that users get, on one model; the others stop at aot_eager for the time.

    It rounds otherwise than eager, from whose bits a random selection would follow.
    """
    spec = "lean+bsr:block=1x8,sparsity=0.75"
    eager, twin = model(spec), model(f"compile+{spec}")
    for got, expected in zip(steps(twin, twin, 5), steps(eager, eager, 5), strict=True):
        assert relative_error(got, expected) < 1e-3
    x = torch.randn(4, 9, 16)
    assert held(twin(x), twin) <= saved_bytes(eager, x)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compile_is_undone_and_left_out_of_copies() -> None:
    made = model("compile+bsr:block=1x8,sparsity=0.75")
    assert made._compiled_call_impl is not None
    assert copy.deepcopy(made)._compiled_call_impl is None
    assert undo(made)._compiled_call_impl is None
    assert set(made.state_dict()) == set(model("dense").state_dict())
