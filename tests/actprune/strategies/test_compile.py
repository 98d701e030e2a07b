"""torch.compile of pruned models: one graph, one compilation, fewer bytes, the same gradients."""

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from actprune import InputError, fidelity, saved_bytes
from actprune.graph import Plan, plan_of
from actprune.graph import compiling as graph
from actprune.strategies.grammar import apply, read, undo
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


DRAW = 24
"""Bytes that a layer which draws has anyway."""
PLANNED = [
    "compile(0.3)+dense",
    "compile+@*=>codes:bits=4",
    "compile(0.2)+@*=>codes:bits=8",
    "compile(64KiB)+@linear=>codes:bits=8;@*=>codes:bits=4",
    "compile(0.5)+bsr:block=1x8,sparsity=0.75,select=priority",
    "compile(0.5)+weighted+bsr:block=1x8,sparsity=0.75,select=priority",
    "compile+block.*=>bsr:block=1x8,sparsity=0.75;@*=>codes:bits=4",
    "compile(0.3)+bf16+dense",
    "compile(0.3)+lean+dense",
    "compile(0.3)+lean-4bit+@*=>codes:bits=4",
    "compile(0.9)+checkpoint(block)+dense",
    "compile+checkpoint(block)+@*=>codes:bits=8",
    "compile(0.9)+selective(block)+dense",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans as they are, without inductor's code."""
    monkeypatch.setattr(graph, "backend", partial(graph.backend, compiler="aot_eager"))


def gradients(module: nn.Module, x: Tensor) -> Tensor:
    module.zero_grad()
    module(x).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("spec", [*PLANNED, "compile+dense", "compile(1.0)+dense"])
def test_a_spec_is_read_back(spec: str) -> None:
    assert read(spec).spec == spec
    assert read(read(spec).spec) == read(spec)


def test_a_budget_has_one_form() -> None:
    loose = {"0.10": "0.1", " 1e-1 ": "0.1", " 64 MiB": "64MiB", "4096": "4096"}
    for given, text in loose.items():
        assert read(f"compile({given})+dense").spec == f"compile({text})+dense"
    assert read("bf16+compile(.5)+dense").spec == "compile(0.5)+bf16+dense"


SIZES = "bytes such as 64MiB, or a share such as 0.1"
SHARES = "a share above 0 and up to 1.0, or bytes such as 64MiB"


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        *(("", SIZES), ("x", SIZES), ("0", SIZES), ("0.1 MiB of it", SIZES)),
        *((text, SHARES) for text in ("-1", "0.0", "2.5", "1e9", "nan", "inf")),
        ("1", "1.0 for all that dense keeps, or bytes such as 64MiB"),
    ],
)
def test_a_bad_budget_is_one_line(budget: str, wanted: str) -> None:
    with pytest.raises(InputError) as told:
        read(f"compile({budget})+dense")
    assert str(told.value) == f"compile(): expected {wanted}, got {budget!r}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("compile+recompute+@*=>codes:bits=4", "spec: recompute is eager mode's; under compile"),
        ("compile(0.1)+recompute+@*=>codes:bits=4", "spec: recompute is eager mode's; under comp"),
        (
            "compile+@activation=>derivative:bits=2;@*=>codes:bits=4",
            "spec: derivative serves no compiled graph, got",
        ),
        ("compile+tail@*=>codes:bits=4", "spec: 'tail' matches no module of the model"),
        ("compile(0.5)+tail=>csr", "spec: 'tail' matches no nn.Linear"),
        ("compile(0.5)+checkpoint+dense", "checkpoint: expected a model with blocks"),
        ("compile+offload+dense", "offload: expected a model on a GPU, got one on the CPU"),
        ("compile(0.3)+offload+dense", "offload: expected a model on a GPU, got one on the CPU"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_cannot_be_is_one_line(spec: str, message: str) -> None:
    plain = Small()
    with pytest.raises(InputError, match=f"^{message}") as told:
        apply(plain, spec)(torch.randn(4, 9, 16))
    assert "\n" not in str(told.value)


def test_a_module_may_be_called_as_a_strategy() -> None:
    read("recompute+compile@*=>codes:bits=4").strategies[0].check([], "recompute+compile@*=>dense")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("spec", PLANNED)
def test_every_spec_holds_less_for_gradients_nearby(spec: str) -> None:
    x, plain = torch.randn(64, 9, 16), model("dense")
    made = model(spec)
    wanted = gradients(plain, x)
    assert relative_error(gradients(made, x), wanted) < (0.3 if "bsr" in spec else 0.05)
    plan = plan_of(made)
    assert len(plan.graphs) == 1
    budget = plan.graphs[0].budget
    assert budget is None or plan.held <= budget
    kept = saved_bytes(made, x, hidden=read(spec).hides)
    assert kept - x.nbytes - DRAW <= plan.held <= kept
    assert kept < 0.6 * saved_bytes(plain, x)
    assert list(made.state_dict()) == list(plain.state_dict())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("strategies", ["", "bf16+", "lean+", "bf16+checkpoint(block)+"])
def test_rules_decide_by_module(strategies: str) -> None:
    rules = "block.mlp@*=>codes:bits=8;block@*=>codes:bits=4;@*=>dense"
    made = model(f"compile+{strategies}{rules}")
    gradients(made, torch.randn(64, 9, 16))
    names = {name for name, _ in made.named_modules()}
    found: dict[str, set[tuple[str, ...]]] = {}
    for entry in plan_of(made).graphs[0].entries:
        assert entry.module in names
        found.setdefault(entry.choice, set()).add((entry.module, *entry.kinds))
    assert found["codes:bits=4"]
    if strategies in ("", "bf16+"):
        assert ("block.mlp.fc1", "activation") in found["codes:bits=8"]
        assert ("block.attn", "linear") in found["codes:bits=4"]
        assert not any(name.startswith("block.mlp") for name, *_ in found["keep"])


@pytest.mark.usefixtures("quick")
def test_below_the_least_the_first_call_says_it() -> None:
    dropping = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Linear(64, 16), nn.Dropout(0.5))
    made = apply(dropping, "compile(64B)+dense")
    for _ in range(2):  # and the next one too
        with pytest.raises(InputError, match=r"^budget: expected at least \d+ bytes.*\S$") as told:
            made(torch.randn(512, 16))
        assert "\n" not in str(told.value)


@pytest.mark.usefixtures("quick")
def test_models_do_not_count_for_each_other() -> None:
    """Beyond torch's recompile_limit they would run as they are."""
    x = torch.randn(64, 9, 16)
    for _ in range(torch._dynamo.config.recompile_limit + 2):
        made = model("compile(0.3)+dense")
        made.eval()(x)
        gradients(made.train(), x)
        assert plan_of(made).graphs


@pytest.mark.usefixtures("quick")
def test_apply_undo_apply() -> None:
    x, plain = torch.randn(64, 9, 16), model("dense")
    made = model("compile(0.3)+dense")
    gradients(made, x)
    first = plan_of(made)
    undo(made)
    assert torch.equal(gradients(made, x), gradients(plain, x))
    with pytest.raises(InputError, match=r"^model: expected one to which a spec with a budget"):
        plan_of(made)
    apply(made, "compile(0.3)+dense")
    assert plan_of(made) == Plan()
    gradients(made, x)
    assert plan_of(made) == first
    apply(made, "compile+@*=>codes:bits=4")
    gradients(made, x)
    assert plan_of(made) != first
    apply(made, "dense")
    assert torch.equal(gradients(made, x), gradients(plain, x))


@pytest.mark.usefixtures("quick")
def test_copies_are_plain_and_leave_the_model_as_it_is(tmp_path: Path) -> None:
    x, made = torch.randn(64, 9, 16), model("compile(0.3)+dense")
    gradients(made, x)
    torch.save(made, tmp_path / "model.pt")
    copies = [
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ]
    for twin in copies:
        with pytest.raises(InputError, match="got Small without"):
            plan_of(twin)
        assert torch.equal(gradients(twin, x), gradients(model("dense"), x))
        apply(twin, "compile(0.3)+dense")
        gradients(twin, x)
        assert plan_of(twin) == plan_of(made)


@pytest.mark.usefixtures("quick")
def test_within_ddp(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        x = torch.randn(64, 9, 16)
        ranks = DistributedDataParallel(model("compile(0.3)+dense"))
        error = relative_error(gradients(ranks, x), gradients(model("dense"), x))
        (graph,) = plan_of(ranks).graphs
    finally:
        torch.distributed.destroy_process_group()
    assert error < 0.05
    assert graph.held <= 0.3 * graph.dense


def test_torch_s_own_compilation_has_no_plan() -> None:
    with pytest.raises(
        InputError, match=r"^model: expected one to which a spec with a budget or r"
    ):
        plan_of(model("compile+dense"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's tracer asks for it
@pytest.mark.parametrize("spec", ["compile(0.3)+dense", "compile+bf16+@*=>codes:bits=4"])
def test_planned_by_inductor(spec: str) -> None:
    x, made = torch.randn(64, 9, 16), model(spec)
    near = 0.1 if "bf16" in spec else 0.05
    assert relative_error(gradients(made, x), gradients(model("dense"), x)) < near
    assert plan_of(made).held < 0.31 * plan_of(made).dense
    assert held(made(x), made) <= saved_bytes(model("dense"), x) * 0.4


@pytest.mark.usefixtures("quick")
def test_weights_do_not_count_where_a_loss_takes_the_model() -> None:
    """A compiled graph is given them as plain tensors."""
    x, made = torch.randn(64, 9, 16), model("compile+@*=>codes:bits=4")

    def loss(module: nn.Module, x: Tensor) -> Tensor:
        return module(x).sum()  # type: ignore[no-any-return]

    assert saved_bytes(loss, made, x) <= saved_bytes(made, x)


@pytest.mark.parametrize("spec", ["compile+@*=>codes:bits=4", "@*=>codes:bits=4"])
@pytest.mark.usefixtures("quick")
def test_fidelity_is_that_of_the_rules(spec: str) -> None:
    x, target = torch.randn(64, 9, 16), torch.randint(5, (64,))
    layers = {layer.layer: layer for layer in fidelity(model(spec), (x, target))}
    assert set(layers) == {"stem", "block.attn", "block.mlp.fc1", "block.mlp.fc2", "head"}
    assert all(layer.rel_error < 0.2 for layer in layers.values())
    assert layers["block.mlp.fc2"].rel_error > 0.002
    assert fidelity(model("dense"), (x, target)) == []
