"""The backend: what it works with, and that its plans stay within their budgets."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from actprune.graph.compiling import Backend, backend
from actprune.graph.options import ERRORS
from actprune.graph.plan import KEEP, RECOMPUTE, Plan
from actprune_common.errors import InputError
from tests.planned import assert_same, chosen, first_of, graphs, train
from tests.ranks import own, torchrun
from tests.twins import Net

RANKS = Path(__file__).with_name("graph_ranks.py")
CODES = 0.3
"""A share of the bytes that codes of 8 bits are within."""
CLOSE = ERRORS[4]
"""What gradients err by at most where all is held in 4 bits or more."""
BREAKS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
"""torch looks at what it compiles after a graph break."""


def aot(*args: Any, **kwargs: Any) -> Backend:
    return backend(*args, compiler="aot_eager", **kwargs)


def mlp(width: int = 32) -> nn.Sequential:
    parts = nn.Linear(width, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, width)
    return nn.Sequential(*parts)


def batch(rows: int = 64, width: int = 32) -> Tensor:
    return torch.randn(rows, width)


def gradients(model: nn.Module, run: Callable[..., Any], *inputs: Any) -> list[Tensor]:
    model.zero_grad()
    run(*inputs).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_close(found: list[Tensor], wanted: list[Tensor], error: float = CLOSE) -> None:
    """All gradients together err by at most so much, relative to their size."""
    flat, whole = (torch.cat([part.flatten() for part in parts]) for parts in (found, wanted))
    assert flat.shape == whole.shape
    assert float((flat - whole).norm()) <= error * float(whole.norm())


def assert_within(planned: Backend, share: float = CODES, count: int = 1) -> None:
    """A plan for each graph was made, each within its share."""
    found = planned.plan.graphs
    assert len(found) == count
    for graph in found:
        assert 0 < graph.held <= share * graph.dense


@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_whole_graph(fullgraph: bool) -> None:
    model, x, planned = mlp(), batch(), aot(CODES)
    run = torch.compile(model, backend=planned, fullgraph=fullgraph)
    assert_close(gradients(model, run, x), gradients(model, model, x))
    assert_within(planned)


@pytest.mark.parametrize("how", ["dynamic", "by itself", "marked"])
def test_a_plan_is_kept_for_another_batch_size(how: str) -> None:
    model, planned = mlp(), aot(CODES)
    run = torch.compile(model, backend=planned, dynamic=True if how == "dynamic" else None)
    seen = []
    for rows in (64, 48, 96, 200):
        x = batch(rows)
        if how == "marked":
            torch._dynamo.mark_dynamic(x, 0)
        assert_close(gradients(model, run, x), gradients(model, model, x))
        assert_within(planned)
        seen.append([entry.choice for entry in planned.plan.graphs[0].entries])
    assert all(choices == seen[0] for choices in seen)
    assert "codes:bits=8" in seen[0] or "codes:bits=4" in seen[0]


class Sized(nn.Module):
    """Sizes are computed with, and too small a batch leaves nothing to code."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.conv, self.norm = nn.Conv1d(32, 32, 3, padding=1), nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        heads = F.scaled_dot_product_attention(q * 0.5, k, v).transpose(1, 2).reshape(b * t, c)
        y = (self.out(heads) * heads.sigmoid()).view(b, t, c)
        y = self.norm(self.conv(y.transpose(1, 2))).relu()
        out: Tensor = (y * y.mean(0, keepdim=True)).flatten(1).reshape(b * c, -1).softmax(-1)
        return out


@pytest.mark.parametrize("budget", [0.35, None, 200_000])
def test_sizes_that_change(budget: Any) -> None:
    model, planned = Sized(), aot("@*=>codes:bits=8", budget=budget)
    run = torch.compile(model, backend=planned)
    for rows in (8, 16, 32, 3, 1):
        x = torch.randn(rows, 16, 32)
        assert_close(gradients(model, run, x), gradients(model, model, x), 10 * ERRORS[8])
        if rows != 1:  # the graph of one sample is another
            assert len(planned.plan.graphs) == 1
        for graph in planned.plan.graphs:
            assert not isinstance(budget, float) or graph.held <= budget * graph.dense
            assert not isinstance(budget, int) or graph.held <= budget


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("spec", [0.5, "@*=>codes:bits=4", None])
def test_small_batches(rows: int, spec: Any) -> None:
    model, planned = mlp(), aot(spec)
    x = batch(rows)
    run = torch.compile(model, backend=planned)
    model.zero_grad()
    run(x).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model(x).square().sum().backward()
    assert_close(found, [p.grad.clone() for p in model.parameters() if p.grad is not None])


class Broken(nn.Module):
    """Two graph breaks, three parts."""

    def __init__(self, same: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(mlp(32) for _ in range(3))
        if not same:
            self.parts[1] = nn.Sequential(nn.Linear(32, 32), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts[0](x)
        torch._dynamo.graph_break()
        x = self.parts[1](x)
        torch._dynamo.graph_break()
        out: Tensor = self.parts[2](x)
        return out


@BREAKS
@pytest.mark.parametrize("same", [True, False])
def test_graph_breaks(same: bool) -> None:
    model, x, planned = Broken(same), batch(), aot(CODES)
    run = torch.compile(model, backend=planned)
    assert_close(gradients(model, run, x), gradients(model, model, x))
    assert_within(planned, count=3)


@BREAKS
@pytest.mark.parametrize("same", [True, False])
def test_bytes_are_for_all_graphs_together(same: bool) -> None:
    model, x, dense = Broken(same), batch(), aot()
    gradients(model, torch.compile(model, backend=dense), x)
    assert len(dense.plan.graphs) == 3
    budget = int(0.6 * dense.plan.dense)
    torch._dynamo.reset()
    planned = aot(budget)
    run = torch.compile(model, backend=planned)
    assert_close(gradients(model, run, x), gradients(model, model, x))
    assert len(planned.plan.graphs) == 3
    assert planned.plan.held <= budget
    torch._dynamo.reset()
    model.parts[2] = nn.Sequential(model.parts[2], nn.Dropout(0.5))
    with pytest.raises(InputError, match=r"^budget: expected at least \d+ bytes.*\S$"):
        made_plan(model, x, keep=2)


def test_autocast() -> None:
    model, x, planned = mlp(), batch(), aot(CODES)
    run = torch.compile(model, backend=planned)

    def cast(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def inner(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return function(x)

        return inner

    assert_close(gradients(model, cast(run), x), gradients(model, cast(model), x))
    assert_within(planned)


def test_accumulated_gradients_and_two_models() -> None:
    planned = aot(CODES)
    for model in (mlp(), nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 8))):
        twin = [torch.zeros_like(p) for p in model.parameters()]
        run = torch.compile(model, backend=planned)
        model.zero_grad()
        xs = [batch() for _ in range(3)]
        for x in xs:
            run(x).square().mean().backward()
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        for x in xs:
            for total, part in zip(twin, gradients(model, model, x), strict=True):
                total += part
        assert_close(found, twin)
    assert_within(planned, count=2)


def test_compiled_twice() -> None:
    model, x, planned = mlp(), batch(), aot(CODES)
    wanted = gradients(model, model, x)
    for _ in range(2):
        run = torch.compile(model, backend=planned)
        assert_close(gradients(model, run, x), wanted)
        assert_within(planned)
        torch._dynamo.reset()


def test_without_gradients_there_is_no_plan() -> None:
    model, x, planned = mlp(), batch(), aot(1024)
    run = torch.compile(model, backend=planned)
    with torch.no_grad():
        torch.testing.assert_close(run(x), model(x))
    model.eval()
    with torch.inference_mode():
        torch.testing.assert_close(run(x), model(x))
    model.requires_grad_(False)
    torch.testing.assert_close(run(x), model(x))
    assert planned.plan.graphs == ()


def test_dropout_draws_as_torch_s_own_compilation_does() -> None:
    def forward(m: Net, x: Tensor) -> Any:
        x = F.dropout(m.first(x), 0.4).relu()
        return F.dropout(m.second(x), 0.2, training=True)

    model = Net(forward, first=nn.Linear(32, 64), second=nn.Linear(64, 32)).double()
    x = batch(64).double()
    wanted = train(model, (x,), "aot_eager")
    for wish in (KEEP, RECOMPUTE, "bits"):
        found = graphs(model, (x,))
        planned = chosen(found, first_of(wish, KEEP))
        assert_same(train(model, (x,), planned), wanted)
    assert "bits" in {entry.choice for entry in planned.plan.graphs[0].entries}


class Checkpointed(nn.Module):
    """Blocks within checkpoints."""

    def __init__(self, dropout: float = 0.0, **options: Any) -> None:
        super().__init__()
        inner = (nn.Linear(32, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 32), nn.Tanh())
        self.blocks = nn.ModuleList(nn.Sequential(*inner) for _ in range(2))
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False, **self.options)
        return x


def test_no_budget_is_so_large_that_a_checkpoint_is_given_up() -> None:
    """What is fastest is not what the model asks for."""
    model, x = Checkpointed(), batch()
    (graph,) = made_plan(model, x, keep=1 << 30).graphs
    assert graph.held <= graph.dense
    inner = [e for e in graph.entries if "gelu" in e.producer or "addmm" in e.producer]
    assert len(inner) == 6
    assert all(entry.choice in (RECOMPUTE, "-") for entry in inner)


def test_checkpoints_in_the_model_are_kept_to() -> None:
    model, x = Checkpointed(), batch()
    dense = aot()
    wanted = gradients(model, model, x)
    assert_close(gradients(model, torch.compile(model, backend=dense), x), wanted, 1e-6)
    torch._dynamo.reset()
    planned = aot("@*=>codes:bits=8")
    assert_close(gradients(model, torch.compile(model, backend=planned), x), wanted)
    (graph,) = planned.plan.graphs
    boundaries = 2 * x.nbytes
    assert dense.plan.held <= boundaries
    assert graph.held <= 0.6 * boundaries
    for entry in graph.entries:
        if entry.producer in ("aten.gelu.default", "aten.addmm.default", "aten.tanh.default"):
            assert entry.choice == RECOMPUTE


def test_dropout_in_a_checkpoint() -> None:
    model = Checkpointed(dropout=0.5).double()
    x = batch().double()
    wanted = train(model, (x,), "aot_eager")
    for planned in (aot(), chosen(graphs(model, (x,)), first_of(RECOMPUTE, KEEP))):
        assert_same(train(model, (x,), planned), wanted)


def _policy(_: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    products = torch.ops.aten.mm.default, torch.ops.aten.addmm.default
    return CheckpointPolicy.MUST_SAVE if op in products else CheckpointPolicy.PREFER_RECOMPUTE


def test_selective_checkpoints() -> None:
    def contexts() -> Any:
        return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]

    model, x = Checkpointed(context_fn=contexts), batch()
    planned = aot("@*=>codes:bits=8")
    found = gradients(model, torch.compile(model, backend=planned), x)
    assert_close(found, gradients(model, model, x))
    choices = {entry.producer: entry.choice for entry in planned.plan.graphs[0].entries}
    assert choices["aten.addmm.default"] == "codes:bits=8"
    assert choices["aten.gelu.default"] == RECOMPUTE
    torch._dynamo.reset()
    with pytest.raises(InputError, match="budget: expected at least"):
        made_plan(model, x, keep=16)  # what must be held can't be computed again


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_ranks(way: str) -> None:
    assert own(torchrun(2, RANKS, way)).count("the same") == 2


# Budgets


def conv() -> nn.Module:
    parts = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*parts, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 4))


def dropping() -> nn.Module:
    parts = nn.Linear(32, 64), nn.Dropout(0.5), nn.GELU(), nn.Linear(64, 32), nn.Sigmoid()
    return nn.Sequential(*parts)


SHARES = 1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02


@pytest.mark.parametrize(
    ("made", "x"),
    [(mlp, batch()), (conv, torch.randn(16, 3, 16, 16)), (dropping, batch(512))],
    ids=["mlp", "conv", "dropping"],
)
def test_a_budget_is_kept_and_a_lower_one_is_never_faster(
    made: Callable[[], nn.Module], x: Tensor
) -> None:
    model, before, met = made(), 0.0, 0
    for share in SHARES:
        try:
            (graph,) = made_plan(model, x, keep=share).graphs
        except InputError:
            break
        met += 1
        assert graph.held <= share * graph.dense
        assert graph.seconds >= before
        before = graph.seconds
    assert met == len(SHARES) if made is not dropping else 5 < met < len(SHARES)


def test_below_the_least_an_error_says_it() -> None:
    model, x = dropping(), batch(512)
    with pytest.raises(InputError, match=r"^budget: expected at least \d+ bytes.*\S$") as told:
        made_plan(model, x, keep=2)
    text = str(told.value)
    assert "\n" not in text
    least = int(text.split("at least ")[1].split()[0])
    torch._dynamo.reset()
    assert made_plan(model, x, keep=least).held <= least
    with pytest.raises(InputError, match=f"^budget: expected at least {least} bytes"):
        made_plan(model, x, keep=least - 1)


# Plans that are given


def made_plan(model: nn.Module, x: Tensor, **options: Any) -> Plan:
    planned = aot(**options)
    gradients(model, torch.compile(model, backend=planned), x)
    torch._dynamo.reset()
    return planned.plan


def test_a_plan_that_was_edited_is_followed(tmp_path: Path) -> None:
    model, x = mlp(), batch()
    plan = made_plan(model, x)
    entry = next(e for e in plan.graphs[0].entries if "gelu" in e.producer)
    assert entry.choice == KEEP
    path = tmp_path / "plan.txt"
    lines = plan.text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.split()[:1] == [entry.name])
    lines[place] = lines[place].replace(KEEP, "codes", 1)
    path.write_text("\n".join(lines))
    planned = aot(plan=path)
    run = torch.compile(model, backend=planned)
    assert_close(gradients(model, run, x), gradients(model, model, x), 0.15)
    told = {each.name: each.choice for each in planned.plan.graphs[0].entries}
    assert told == {e.name: e.choice for e in plan.graphs[0].entries} | {entry.name: "codes:bits=4"}
    assert planned.plan.held < plan.held


def refused(model: nn.Module, x: Tensor, plan: Plan, text: str) -> None:
    with pytest.raises(InputError, match=text):
        gradients(model, torch.compile(model, backend=aot(plan=plan)), x)


def test_plans_that_do_not_fit_are_refused() -> None:
    model, x = mlp(), batch()
    plan = made_plan(model, x)
    (graph,) = plan.graphs

    def edited(**changes: Any) -> Plan:
        entry = dataclasses.replace(graph.entries[0], **changes)
        return Plan((dataclasses.replace(graph, entries=(entry, *graph.entries[1:])),))

    other = nn.Sequential(nn.Linear(32, 32), nn.SiLU())
    refused(other, x, plan, rf"plan: expected a graph of {graph.key}, got \w+")
    refused(model, x, edited(name="nobody"), "plan: .* no tensor 'nobody'.*known: .*addmm")
    name = graph.entries[0].name
    told = rf"plan: expected one of keep, codes:bits=8.* for {name}, got 'bits'"
    refused(model, x, edited(choice="bits"), told)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"keep": 0.0},
            "budget: expected a share above 0 and up to 1.0, or bytes such as 64MiB, got 0.0",
        ),
        (
            {"keep": 1},
            "budget: expected 1.0 for all that dense keeps, or bytes such as 64MiB, got 1",
        ),
        ({"keep": "12parsec"}, "budget: expected bytes such as 64MiB"),
        ({"keep": 0.1, "budget": 0.2}, "budget: given twice, 0.1 and 0.2"),
        ({"peak": -1}, "peak: expected bytes such as 64MiB, or a share such as 0.1, got -1"),
        ({"error": 0.0}, "error: expected a number above 0, got 0.0"),
        ({"keep": "bsr:block=1x8,sparsity=0.5"}, "spec: expected rules with @"),
    ],
)
def test_bad_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        aot(**options)


def test_unknown_compiler() -> None:
    with pytest.raises(InputError, match="compiler: expected one of inductor, aot_eager"):
        backend(compiler="nvcc")
