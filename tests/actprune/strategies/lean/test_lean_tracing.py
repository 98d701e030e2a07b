"""Lean chains in models whose forward is more than a graph: refused, or left to forward itself."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from actprune import InputError, convert, saved_bytes
from actprune.strategies.grammar import apply, undo
from actprune.strategies.lean import chains, lean, unlean
from actprune_bench.models import MODELS

CHAIN = "linear-GELU-linear"
NONE = "no GELU to another linear, no affine before, no scale after"
SEEN: list[object] = []


class Layers(nn.Module):
    """What the models of this file are made of: lean in itself, and in what derives from it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        self.count, self.cache, self.factor = 0, [1.0], 1.0
        self.last: Any = None
        self.register_buffer("table", torch.randn(9, 8))
        self.constant = torch.randn(8)

    def mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Holder(nn.Module):
    """A module around Layers, and a chain beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc1, self.fc2 = Layers(), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.inner(x))))
        return out


def made(forward: Callable[..., Any], kind: type[nn.Module] = Layers) -> Any:
    """A model of a class whose forward this is."""
    return type("Model", (kind,), {"forward": forward})()


def x() -> Tensor:
    return torch.randn(4, 8)


def is_lean(model: nn.Module, *args: Any, **kwargs: Any) -> bool:
    """Whether a chain is behind its output."""
    out = model(*args, **kwargs)  # alive: before torch 2.12 a node of ours is dead without it
    stack, seen = [out.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [before for before, _ in node.next_functions]
    return any(node.name() == "ChainBackward" for node in seen)


def contents(model: nn.Module) -> list[dict[str, object]]:
    return [dict(vars(part)) for part in model.modules()]


def drops(self: Any, x: Tensor) -> Any:
    return F.dropout(self.mlp(x), 0.5, self.training)


def test_it_is_traced_as_in_training() -> None:
    model = made(drops).eval()
    model.act.train()
    lean(model, gelu=None)
    assert [part.training for part in model.modules()] == [False, False, True, False]
    model.train()
    assert is_lean(model, x())
    assert 0.2 < float((model(torch.randn(64, 8)) == 0).float().mean()) < 0.8


def test_a_part_in_another_mode_runs_its_own_forward() -> None:
    model: Any = Holder()
    model.inner = made(drops)
    lean(model, gelu=None)
    model.inner.eval()
    data = x()
    assert torch.equal(model(data), model(data))
    model.inner.train()
    assert not torch.equal(model(data), model(data))


def positions(self: Any, x: Tensor, pos: Tensor | None = None, *, scale: float = 1.0) -> Any:
    x = x * 3 if pos is None else x + pos
    if isinstance(scale, int):
        x = x * 7
    return self.mlp(x) * scale


def test_defaults_are_bound_and_other_arguments_run_forward() -> None:
    model = made(positions)
    plain, data, pos = copy.deepcopy(model), x(), x()
    assert chains(model)["fc1"] == CHAIN
    lean(model, gelu=None)
    assert is_lean(model, data)
    assert is_lean(model, data, None, scale=1.0)
    assert not is_lean(model, data, pos)
    for args, kwargs in (
        ((data,), {}),
        ((data, pos), {}),
        ((data,), {"scale": 2.0}),
        ((data,), {"scale": 1}),
    ):
        torch.testing.assert_close(model(*args, **kwargs), plain(*args, **kwargs))
    with pytest.raises(TypeError, match=r"missing.* 'x'"):
        model()


def test_parts_are_lean_where_an_argument_runs_their_parent_s_forward() -> None:
    def forward(self: Any, x: Tensor, targets: Tensor | None = None) -> Any:
        out: Tensor = self.fc1(self.inner(x))
        return out if targets is None else (out - targets).square().mean()

    model = lean(made(forward, Holder))
    assert is_lean(model, x())
    assert is_lean(model, x(), torch.randn(4, 16))


def test_what_is_none_is_asked_of_forward() -> None:
    def forward(self: Any, x: Tensor, mask: Tensor | None) -> Any:
        out = self.mlp(x)
        return out if mask is None else out * mask

    model = lean(made(forward), gelu=None)
    data = x()
    torch.testing.assert_close(model(data, None), model(data, torch.ones(8)))
    assert is_lean(model, data, torch.ones(8))


def test_types_are_no_placeholder_s() -> None:
    def forward(self: Any, x: Tensor, scale: float) -> Any:
        out: Tensor = self.mlp(x)
        return out * scale if isinstance(scale, float) else out

    assert chains(made(forward))["fc1"] == (
        "its model cannot be traced: its forward asks of which type a value is"
    )


def noise(self: Any, x: Tensor) -> Any:
    return self.mlp(x) + torch.randn(8)


def constant(self: Any, x: Tensor) -> Any:
    return self.mlp(x) * torch.tensor(2.0)


def depth(self: Any, x: Tensor) -> Any:
    return self.mlp(x) if torch.rand(()) < 0.5 else x


def python_depth(self: Any, x: Tensor) -> Any:
    return self.mlp(x) if random.random() < 0.5 else x


def numpy_depth(self: Any, x: Tensor) -> Any:
    return self.mlp(x) if np.random.rand() < 0.5 else x


def elsewhere(self: Any, x: Tensor) -> Any:
    return self.mlp(x) + SEEN[0]


def derived(self: Any, x: Tensor) -> Any:
    return self.mlp(x) + self.constant.exp()


def remembers(self: Any, x: Tensor) -> Any:
    self.last = self.mlp(x)
    return self.last


def counts(self: Any, x: Tensor) -> Any:
    self.count += 1
    return self.mlp(x)


def appends(self: Any, x: Tensor) -> Any:
    self.cache.append(x)
    return self.mlp(x)


def detaches(self: Any, x: Tensor) -> Any:
    with torch.no_grad():
        x = self.fc1(x)
    return self.fc2(self.act(x))


def casts(self: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return self.mlp(x)


def checkpoints(self: Any, x: Tensor) -> Any:
    return checkpoint(self.mlp, x, use_reentrant=False)


def anything(self: Any, *xs: Tensor) -> Any:
    return self.mlp(xs[0])


def named(self: Any, **xs: Tensor) -> Any:
    return self.mlp(xs["x"])


class Straight(torch.autograd.Function):
    """Has a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def straight(self: Any, x: Tensor) -> Any:
    return Straight.apply(self.mlp(x))  # type: ignore[no-untyped-call]


SWITCHES = "its forward switches gradients, autocast or checkpointing within"
MAKES = r"its forward makes a tensor \(aten\.{}\.default\) of no input, parameter or buffer"
# torch up to 2.11 begins a checkpoint with an empty tensor, before it switches anything
EMPTY = MAKES.replace("default", "memory_format").format("empty")
CHECKPOINTS = SWITCHES if torch.__version__ >= "2.12" else EMPTY  # compared as versions


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (noise, MAKES.format("randn")),
        (constant, MAKES.format("lift_fresh")),
        (depth, MAKES.format("rand")),
        (derived, MAKES.format("exp")),
        (elsewhere, "its forward changes _tensor_constant0"),
        (python_depth, "its forward draws a random number"),
        (numpy_depth, "its forward draws a random number"),
        (remembers, "its forward changes last"),
        (counts, "its forward changes count"),
        (appends, "its forward changes a list"),
        (detaches, SWITCHES),
        (casts, SWITCHES),
        (checkpoints, CHECKPOINTS),
        (straight, SWITCHES),
        (anything, r"its forward takes \*args or \*\*kwargs"),
        (named, r"its forward takes \*args or \*\*kwargs"),
    ],
)
def test_what_no_graph_has_is_refused(forward: Callable[..., Any], reason: str) -> None:
    SEEN[:] = [torch.randn(8)]
    model = made(forward).eval()
    before, cache = contents(model), list(model.cache)
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(InputError, match=f"fc1: its model cannot be traced: {reason}; fc2"):
        lean(model)
    assert all(
        old.keys() == new.keys() and all(old[name] is new[name] for name in old)
        for old, new in zip(before, contents(model), strict=True)
    )
    assert model.cache == cache
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_buffers_and_tensors_of_the_module_are_read_when_it_runs() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return self.mlp(x + self.table[:4] * self.constant)

    model = lean(made(forward), gelu=None)
    data = x()
    model.table.zero_()
    assert is_lean(model, data)
    torch.testing.assert_close(model(data), model.mlp(data))


def test_attributes_that_change_run_forward() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return self.mlp(x) * self.factor

    model = lean(made(forward), gelu=None)
    data = x()
    before = model(data)
    assert is_lean(model, data)
    model.factor = 2.0
    torch.testing.assert_close(model(data), 2 * before)
    assert not is_lean(model, data)
    assert is_lean(lean(model), data)


def test_layers_that_are_exchanged_run_forward() -> None:
    model: Any = lean(Layers(), gelu=None)
    model.fc1 = nn.Sequential(model.fc1, nn.ReLU())
    data = x()
    torch.testing.assert_close(model(data), model.mlp(data))
    model = lean(convert(Layers(), "csr:sparsity=0"))
    convert(model, "csr:sparsity=0.5")  # in place: the chain keeps what it says now
    assert is_lean(model, data)


def test_what_is_changed_in_place_is_changed_for_all() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        before = x = x.sin()
        out: Tensor = self.mlp(x)
        x += 1
        return out + before

    model = convert(made(forward), "csr:sparsity=0")
    plain, data = copy.deepcopy(model), x()
    torch.testing.assert_close(lean(model, gelu=None)(data), plain(data))
    assert is_lean(model, data)


def test_a_chain_is_not_moved_past_a_change_of_its_input() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        x = x * 1.0
        h = self.fc1(x)
        x += 1
        out: Tensor = self.fc2(self.act(h)) + x
        return out

    assert CHAIN not in chains(made(forward)).values()


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda m: m.register_forward_hook(lambda *_: SEEN.append(m)),
    "forward_pre": lambda m: m.register_forward_pre_hook(lambda *_: SEEN.append(m)),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: SEEN.append(m)),
    "backward_pre": lambda m: m.register_full_backward_pre_hook(lambda *_: SEEN.append(m)),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["fc1", "act", "fc2"])
@pytest.mark.parametrize("after", [False, True])
def test_hooks_run(kind: str, name: str, after: bool) -> None:
    model = Layers()
    if after:
        lean(model)
    handle = HOOKS[kind](model.get_submodule(name))
    words = chains(model)
    if name == "act":
        assert words["fc1"] == "act: it has hooks"
    else:
        assert words[name] == "it has hooks"
    if not after:
        with pytest.raises(InputError, match="it has hooks"):
            lean(model)
    SEEN.clear()
    model(x().requires_grad_()).sum().backward()
    assert [model.get_submodule(name)] == SEEN
    handle.remove()
    assert not after or is_lean(model, x())


def test_a_module_with_hooks_is_called_and_lean_within() -> None:
    model = Holder()
    HOOKS["forward"](model.inner)
    assert set(chains(model).values()) == {CHAIN}
    lean(model)
    SEEN.clear()
    model(x()).sum().backward()
    assert [model.inner] == SEEN
    assert set(chains(model).values()) == {CHAIN}


def test_pruned_and_parametrized_weights_stay() -> None:
    model = Layers()
    prune.l1_unstructured(model.fc1, "weight", 0.5)  # type: ignore[no-untyped-call]
    assert chains(model) == {"fc1": "it has hooks", "fc2": NONE}
    model = Layers()
    nn.utils.parametrizations.weight_norm(model.fc1)
    assert CHAIN not in chains(model).values()
    model = lean(Layers(), gelu=None)
    prune.l1_unstructured(model.fc1, "weight", 0.5)  # type: ignore[no-untyped-call]
    model(x()).sum().backward()
    assert model.fc1.weight_orig.grad is not None
    dropped = model.fc1.weight_orig.grad[model.fc1.weight_mask == 0]  # type: ignore[index]
    assert not dropped.any()


def test_hooks_in_resmlp_blocks_run() -> None:
    model: Any = MODELS["resmlp_tiny"](num_classes=10, in_channels=1)
    lean(model)
    images = torch.randn(2, 1, 32, 32)
    small = saved_bytes(model, images)
    handle = HOOKS["forward"](model.blocks[1].mlp.fc1)
    assert chains(model)["blocks.1.mlp.fc2"] == "mlp.fc1: it has hooks"
    assert "blocks.0.mlp.fc2" not in chains(model)
    SEEN.clear()
    assert saved_bytes(model, images) > small
    assert [model.blocks[1].mlp.fc1] == SEEN
    handle.remove()
    assert saved_bytes(model, images) == small


def test_a_replaced_forward_stays() -> None:
    model: Any = Layers()
    model.forward = lambda x: x * 2
    with pytest.raises(
        InputError, match="fc1: its model cannot be traced: its forward is replaced"
    ):
        lean(model)
    data = x()
    assert torch.equal(model(data), data * 2)
    holder = Holder()
    holder.inner = model
    assert chains(holder)["fc1"] == CHAIN
    assert torch.equal(lean(holder).inner(data), data * 2)
    lone: Any = lean(Layers())
    lone.fc1.forward = lambda x: torch.zeros(4, 16)
    assert chains(lone)["fc1"] == "its forward is replaced"
    assert torch.equal(lone(data), lone.fc2(torch.zeros(4, 16)))


def test_lean_goes_beneath_a_wrapper_and_leaves_it() -> None:
    model, data = apply(Layers(), "bf16+dense"), x()
    wrapper = vars(model)["forward"]
    expected = model(data)
    lean(lean(model, gelu=None), gelu=None)
    assert is_lean(model, data)
    torch.testing.assert_close(model(data), expected)
    unlean(model)
    assert vars(model)["forward"] is wrapper
    assert torch.equal(model(data), expected)
    assert "forward" not in vars(undo(lean(model)))
