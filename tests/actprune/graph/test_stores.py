"""What stands for values in rewritten graphs: codes, bits, narrow integers, pruned formats."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks

from actprune.formats import Codes, parse
from actprune.graph import operators
from actprune.graph.compiling import Backend, backend
from actprune.graph.options import ERRORS
from actprune.graph.plan import BITS, KEEP, NARROW, RECOMPUTE
from actprune.graph.products import group_for
from actprune.layers import ops
from tests.planned import assert_same, chosen, first_of, graphs, passes, train
from tests.twins import Net

Case = tuple[nn.Module, tuple[Any, ...]]
PRUNED = "@linear=>bsr:block=1x8,sparsity=0.75,select=priority;@*=>codes:bits=8"


def mlp() -> Case:
    parts = nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 32)
    return nn.Sequential(*parts), (torch.randn(56, 64),)  # no weight has so many rows


def coded(x: Tensor, bits: int) -> Tensor:
    """What codes of a tensor are read as."""
    group = group_for(x, Codes(bits=bits))
    flat = operators.pack(x, bits, group), bits, group, list(x.shape), list(x.stride()), x.dtype
    found: Tensor = operators.unpack(*flat)
    return found


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_give_what_eager_mode_gives_of_coded_tensors(bits: int) -> None:
    """Where eager mode saves what the graph does, the gradients are equal."""
    model, inputs = mlp()
    planned = chosen(graphs(model, inputs), first_of(f"codes:bits={bits}", KEEP))
    found = train(model, inputs, planned)

    def pack(x: Tensor) -> Tensor:
        made = x.dim() == 2 and len(x) == 56 and not torch.equal(x, inputs[0])
        return coded(x, bits) if made else x

    with saved_tensors_hooks(pack, lambda x: x):
        wanted = train(model, inputs)
    assert sum(e.choice == f"codes:bits={bits}" for e in planned.plan.graphs[0].entries) == 4
    grads = {name: part for name, part in wanted.items() if "gradient" in name}
    assert_same({name: found[name] for name in grads}, grads, 1e-6)


def attention() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        q, k, v = m.qkv(x).view(4, 32, 3, 4, 16).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 4).softmax(-1)
        out: Tensor = m.out((weights @ v).transpose(1, 2).flatten(2).sin())
        return out

    return Net(forward, qkv=nn.Linear(64, 192), out=nn.Linear(64, 64)), (torch.randn(4, 32, 64),)


def fused_attention() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        q, k, v = m.qkv(x).view(4, 32, 3, 4, 16).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q.contiguous(), k.exp(), v.sin())
        out: Tensor = m.out(heads.transpose(1, 2).flatten(2))
        return out

    return Net(forward, qkv=nn.Linear(64, 192), out=nn.Linear(64, 64)), (torch.randn(4, 32, 64),)


def conv(memory: torch.memory_format = torch.contiguous_format) -> Case:
    parts = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2)
    model = nn.Sequential(*parts, nn.Conv2d(8, 8, 3), nn.ReLU())
    x = torch.randn(8, 4, 16, 16)
    model.to(memory_format=memory)  # type: ignore[call-overload]
    return model, (x.contiguous(memory_format=memory),)


def conv_channels_last() -> Case:
    return conv(torch.channels_last)


def permuted() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).view(8, 16, 64).transpose(0, 2).sin()
        z = (y.exp() * y).transpose(0, 1).sigmoid()
        return z * z.cos() + y.transpose(0, 1)[:, :, 2:3]

    return Net(forward, fc=nn.Linear(64, 64)), (torch.randn(128, 64),)


STRIDED = attention, fused_attention, conv, conv_channels_last, permuted


def error_of(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    names = [name for name in wanted if "gradient" in name]
    flat, whole = (torch.cat([part[n].flatten() for n in names]) for part in (found, wanted))
    return float((flat - whole).norm() / whole.norm())


@pytest.mark.parametrize("wish", [(), (RECOMPUTE,)], ids=["stores", "again"])
@pytest.mark.parametrize("case", STRIDED)
def test_elements_stay_in_their_places(case: Callable[[], Case], wish: tuple[str, ...]) -> None:
    """An error of all codes together that no element in another's place would leave."""
    model, inputs = case()
    found = graphs(model, inputs)
    draw = iter([False, True] * 50)

    def choose(item: Any) -> str:
        again = next(draw)
        return first_of(*(wish if again else ()), BITS, NARROW, "codes:bits=8", KEEP)(item)

    planned = chosen(found, choose)
    got = train(model, inputs, planned)
    assert "codes:bits=8" in {entry.choice for entry in planned.plan.graphs[0].entries}
    assert error_of(got, train(model, inputs)) < 5 * ERRORS[8]


def test_what_loses_nothing_loses_nothing() -> None:
    """Bits of masks, narrow indices."""

    def forward(m: Net, x: Tensor) -> Any:
        y = F.max_pool2d(m.conv(x), 2)
        return torch.where(y > 0.1, y * y, y.relu())

    model = Net(forward, conv=nn.Conv2d(4, 8, 3, padding=1)).double()
    inputs = (torch.randn(8, 4, 16, 16).double(),)
    planned = chosen(graphs(model, inputs), first_of(BITS, NARROW, KEEP))
    assert_same(train(model, inputs, planned), train(model, inputs))
    assert {BITS, NARROW} <= {entry.choice for entry in planned.plan.graphs[0].entries}


def test_a_format_that_loses_nothing_gives_eager_mode_s_gradients() -> None:
    """The half of the blocks that is pruned is zero."""

    def forward(m: Net, x: Tensor) -> Any:
        out: Tensor = m.second(m.first(x).sin() * m.mask)
        return out

    mask = (torch.arange(64) // 8 % 2).float()
    model = Net(forward, first=nn.Linear(64, 64), second=nn.Linear(64, 32), mask=mask)
    inputs, spec = (torch.randn(8, 16, 64),), "bsr:block=1x8,sparsity=0.5,scope=row"
    planned = backend(f"@linear=>{spec}", compiler="aot_eager")
    found, wanted = train(model, inputs, planned), train(model, inputs)
    assert parse(spec).spec in {entry.choice for entry in planned.plan.graphs[0].entries}
    assert_same(found, wanted, 1e-6)


def pruned() -> Backend:
    return backend(PRUNED, compiler="aot_eager")


def targets(graph: fx.Graph) -> list[Any]:
    return [node.target for node in graph.nodes if node.op == "call_function"]


def test_weight_gradients_come_from_pruned_stores() -> None:
    model, inputs = mlp()
    forward, backward, _ = passes(model, inputs, pruned())
    first, second = targets(forward.graph), targets(backward.graph)
    assert first.count(ops.compress) == first.count(operators.draw) == 2
    assert second.count(ops.grad_weight) == 2
    assert ops.to_dense not in second
    assert second.count(operators.unpack) == 2  # for GELU


def test_draws_differ_between_steps_and_repeat_between_runs() -> None:
    model, inputs = mlp()
    forward, _, arguments = passes(model, inputs, pruned())
    names = {n.name for n in forward.graph.nodes if n.target is operators.draw}

    def draws() -> list[Tensor]:
        found = []

        class Drawing(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                made = super().run_node(n)
                if n.name in names:
                    found.append(made)
                return made

        with torch.no_grad():
            Drawing(forward).run(*arguments)
        return found

    before = draws()
    assert len(before) == 2
    assert len({int(draw[1]) for draw in before}) == 2  # each tensor has a stream
    assert all(map(torch.equal, before, draws()))
    with torch.no_grad():
        for part in arguments:
            part.mul_(1.01)
    assert not any(map(torch.equal, before, draws()))
    found = train(model, inputs, pruned())
    assert_same(train(model, inputs, pruned()), found, 0)
    assert 0.05 < error_of(found, train(model, inputs)) < 2
