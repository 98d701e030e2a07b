"""A pruned linear layer: its gradients, what it keeps, and everything it may be wrapped in."""

import copy
import io
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import actprune
from actprune import PrunedLinear, convert, saved_bytes
from actprune.inspect.memory import saved_tensors
from actprune_bench.measure.tolerance import relative_error

SPECS = [
    "coo:sparsity=0.5",
    "csr:sparsity=0.5",
    "bsr:block=1x4,sparsity=0.5",
    "bsr:block=4x4,sparsity=0.5,scope=global",
    "bsr:block=1x4,sparsity=0.5,select=priority",
]
EXACT = ["dense", "coo:sparsity=0", "csr:sparsity=0", "bsr:block=3x5,sparsity=0"]


def pair(
    spec: str, *sizes: int, bias: bool = True, dtype: torch.dtype | None = None
) -> tuple[nn.Linear, nn.Linear]:
    """A pruned layer and its dense twin."""
    features, out_features = sizes
    dense = nn.Linear(features, out_features, bias=bias, dtype=dtype)
    return convert(copy.deepcopy(dense), spec), dense


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spec", EXACT)
def test_gradcheck_at_sparsity_zero(spec: str, bias: bool) -> None:
    layer, _ = pair(spec, 6, 4, bias=bias, dtype=torch.float64)
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor, *parameters: Tensor) -> Tensor:
        names = [name for name, _ in layer.named_parameters()]
        result = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        assert isinstance(result, Tensor)
        return result

    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


@given(
    leading=st.lists(st.integers(0, 5), max_size=3),
    spec=st.sampled_from(SPECS),
    bias=st.booleans(),
)
def test_only_the_weight_gradient_is_approximate(leading: list[int], spec: str, bias: bool) -> None:
    layer, dense = pair(spec, 8, 5, bias=bias, dtype=torch.float64)
    x = torch.randn(*leading, 8, dtype=torch.float64)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = layer(one), dense(two)
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    assert one.grad is not None
    assert two.grad is not None
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-12, atol=1e-12)
    if bias:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad, rtol=1e-12, atol=1e-12)
    rows = x.reshape(-1, 8)
    draw = layer.draw_for(rows, layer.weight) if isinstance(layer, PrunedLinear) else None
    kept = actprune.parse(spec).compress(rows, draw).to_dense()
    product = grad.reshape(-1, 5).t() @ kept
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, product, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_autograd_sees_compressed_buffers_only(spec: str) -> None:
    layer, _ = pair(spec, 64, 32)
    x = torch.randn(4, 16, 64)
    held, _ = saved_tensors(lambda: layer(x))
    expected = actprune.parse(spec).compress(x.view(-1, 64))
    assert len(held) == len(expected.buffers)
    for buffer in expected.buffers:
        assert any(t.shape == buffer.shape and t.dtype == buffer.dtype for t in held)
    assert saved_bytes(layer, x) == expected.nbytes


def test_what_is_kept_without_need_is_nothing() -> None:
    layer, _ = pair("bsr:block=1x4,sparsity=0.5", 8, 4)
    x = torch.randn(6, 8)
    with torch.no_grad():
        assert saved_tensors(layer, x)[0] == []
    with torch.inference_mode():
        assert saved_tensors(layer, x)[0] == []
    layer.weight.requires_grad_(False)
    assert saved_tensors(layer, x)[0] == []  # frozen weight and an input without gradient
    assert saved_bytes(layer, x.requires_grad_()) == 0  # now the weight, which does not count
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(6, 8))


def test_a_frozen_input_does_not_keep_the_weight() -> None:
    layer, _ = pair("bsr:block=1x4,sparsity=0.5", 8, 4)
    held, _ = saved_tensors(layer, torch.randn(6, 8))
    assert not any(tensor is layer.weight for tensor in held)


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_eval_mode_keeps_and_differentiates_as_training_does(kind: str) -> None:
    x, spec = torch.randn(6, 3, 8), "bsr:block=1x2,sparsity=0.5,select=priority"
    plain = nn.Linear(8, 8) if kind == "linear" else nn.MultiheadAttention(8, 2)
    layer = convert(copy.deepcopy(plain), spec)

    def out(module: nn.Module) -> Tensor:
        found: Tensor = module(x) if kind == "linear" else module(x, x, x)[0]
        return found

    found = []
    for each in (layer.train(), copy.deepcopy(layer).eval()):
        held = saved_bytes(lambda each=each: out(each), weights=each.parameters())
        out(each).square().sum().backward()  # type: ignore[no-untyped-call]
        found.append((held, [parameter.grad for parameter in each.parameters()]))
    assert found[0][0] == found[1][0] < saved_bytes(lambda: out(plain), weights=plain.parameters())
    assert all(map(torch.equal, *(grads for _, grads in found)))
    with torch.no_grad():
        assert torch.equal(out(layer.eval()), out(plain.eval()))


@pytest.mark.parametrize("spec", SPECS)
def test_a_second_backward_is_a_clear_error(spec: str) -> None:
    layer, _ = pair(spec, 8, 4)
    loss = layer(torch.randn(6, 8)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        loss.backward()


def test_retain_graph_allows_a_second_backward() -> None:
    layer, _ = pair("bsr:block=1x4,sparsity=0.5,select=priority", 8, 4)
    loss = layer(torch.randn(6, 8)).sum()
    loss.backward(retain_graph=True)
    assert layer.weight.grad is not None
    first = layer.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(layer.weight.grad, 2 * first)


def test_gradients_of_input_gradients_are_exact() -> None:
    """Penalties on gradients, as in physics-informed training; at sparsity 0 all is exact."""
    plain = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    layer = convert(copy.deepcopy(plain), "bsr:block=1x4,sparsity=0")
    x = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for each in (layer, plain):
        x.grad = None
        out = each(x)
        (first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
        (out.square().mean() + first.square().mean() + second.square().mean()).backward()
        found.append([x.grad, *(parameter.grad for parameter in each.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_weight_gradient_differentiated_again_is_refused() -> None:
    layer, _ = pair("csr:sparsity=0.5", 8, 4)
    x = torch.randn(6, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), layer.weight, create_graph=True)
    with pytest.raises(actprune.InputError, match=r"^gradient: that of a pruned .* exclude=\.\.\."):
        grad.square().sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_an_input_of_another_dtype_is_named(dtype: torch.dtype, autocast: bool) -> None:
    layer, _ = pair("csr", 8, 4)
    own = "bfloat16" if autocast else "float32"
    message = f"^input: expected the weight's dtype, torch.{own}, got {dtype}$"
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        pytest.raises(actprune.InputError, match=message),
    ):
        layer(torch.ones(6, 8, dtype=dtype))


def test_wrong_input_is_named() -> None:
    layer, _ = pair("csr", 8, 4)
    with pytest.raises(actprune.InputError, match=r"input: expected 8 features last, got \(6, 7\)"):
        layer(torch.randn(6, 7))


def test_under_autocast_all_uses_share_one_copy_of_the_weight() -> None:
    layer, dense = pair("bsr:block=1x16,sparsity=0.9", 256, 256)
    x = torch.randn(8, 256)

    def six(module: nn.Module) -> Tensor:
        out = x
        for _ in range(6):
            out = module(out).tanh()
        return out

    with torch.autocast("cpu", torch.bfloat16):
        held = [saved_bytes(lambda m=m: six(m), weights=m.parameters()) for m in (layer, dense)]
        assert held[0] < held[1]
        exact = convert(copy.deepcopy(dense), "bsr:block=1x16,sparsity=0")
        for each in (exact, dense):
            six(each).float().square().sum().backward()  # type: ignore[no-untyped-call]
    assert exact.weight.grad is not None
    assert dense.weight.grad is not None
    assert relative_error(exact.weight.grad, dense.weight.grad) < 1e-2
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        held = [saved_bytes(lambda m=m: six(m), weights=m.parameters()) for m in (layer, dense)]
    assert held[0] < held[1]


def test_under_autocast_a_use_without_gradients_takes_nobody_s() -> None:
    """torch before 2.13 lost them: the copy that it cached had none."""
    layer, dense = pair("bsr:block=1x4,sparsity=0", 8, 4)
    x = torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            layer(x)
        out = layer(x)
    out.float().sum().backward()
    dense(x).sum().backward()
    assert layer.weight.grad is not None
    assert dense.weight.grad is not None
    assert relative_error(layer.weight.grad, dense.weight.grad) < 1e-2


def test_autocast_leaves_double_alone() -> None:
    layer, dense = pair("bsr:block=1x4,sparsity=0", 8, 4, dtype=torch.float64)
    x = torch.randn(6, 8, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = layer(x), dense(x)
    assert out.dtype == expected.dtype == torch.float64
    assert torch.equal(out, expected)
    out.sum().backward()


@pytest.mark.parametrize("spec", EXACT[1:])
def test_autocast_to_bf16(spec: str) -> None:
    layer, dense = pair(spec, 64, 32)
    x = torch.randn(40, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = layer(x), dense(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
    out.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert layer.weight.grad is not None
    assert dense.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert relative_error(layer.weight.grad, dense.weight.grad) < 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        held, _ = saved_tensors(layer, x)
    assert {t.dtype for t in held if t.is_floating_point()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    layer, dense = pair("bsr:block=1x4,sparsity=0", 16, 8, dtype=dtype)
    x = torch.randn(20, 16, dtype=dtype)
    layer(x).sum().backward()
    dense(x).sum().backward()
    assert layer.weight.grad is not None
    assert dense.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, dense.weight.grad)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("select", ["topk", "priority", "topk,values=int4"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant: bool, select: str, autocast: bool) -> None:
    """A block that is used twice, over steps: what is computed again selects as it did at first."""
    block = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.Dropout(0.1))
    convert(block, f"bsr:block=1x4,sparsity=0.5,select={select}")
    twin, x = copy.deepcopy(block), torch.randn(24, 16, requires_grad=True)

    def step(module: nn.Module, again: Any) -> list[Tensor]:
        torch.manual_seed(0)
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = again(module, again(module, x)).float().square().sum()
        out.backward()
        return [p.grad for p in module.parameters() if p.grad is not None]

    for _ in range(2):
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.mul_(0.99)
        twin.load_state_dict(block.state_dict())
        expected = step(twin, lambda module, x: module(x))
        found = step(block, partial(checkpoint, use_reentrant=reentrant))
        for one, two in zip(found, expected, strict=True):
            tolerance = 1e-2 if autocast and reentrant else 1e-6  # each use adds in fp32 there
            assert relative_error(one, two) < tolerance


def test_copies_and_pickles_go_on_by_themselves() -> None:
    layer, _ = pair("bsr:block=1x4,sparsity=0.5,select=priority", 8, 4)
    x = torch.randn(16, 8)
    layer(x)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    twins = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(buffer, weights_only=False),
    ]
    for each in (layer, *twins):
        each(x).sum().backward()
    for twin in twins:
        assert isinstance(twin, PrunedLinear)
        assert torch.equal(twin.weight.grad, layer.weight.grad)  # type: ignore[arg-type]


def test_a_weight_shared_by_two_layers_adds_up() -> None:
    one, two = nn.Linear(8, 8, dtype=torch.float64), nn.Linear(8, 8, dtype=torch.float64)
    two.weight = one.weight
    model = nn.Sequential(one, nn.Tanh(), two)
    x = torch.randn(12, 8, dtype=torch.float64)
    model(x).sum().backward()
    assert one.weight.grad is not None
    expected = one.weight.grad.clone()
    model.zero_grad()
    convert(model, "bsr:block=1x4,sparsity=0")
    assert two.weight is one.weight
    model(x).sum().backward()
    torch.testing.assert_close(one.weight.grad, expected)


def test_runs_repeat_and_steps_differ() -> None:
    x = torch.randn(64, 16)

    def grads() -> list[Tensor]:
        torch.manual_seed(1)
        layer = convert(nn.Linear(16, 4), "bsr:block=1x4,sparsity=0.5,select=priority")
        found = []
        for _ in range(3):
            layer.zero_grad()
            layer(x).sum().backward()
            assert layer.weight.grad is not None
            found.append(layer.weight.grad.clone())
            with torch.no_grad():  # a step too small to change the input's gradient
                layer.weight.sub_(layer.weight.grad, alpha=1e-6)
        return found

    first, again = grads(), grads()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_the_global_generator_is_left_alone() -> None:
    layer, _ = pair("bsr:block=1x4,sparsity=0.5,select=priority", 8, 4)
    state = torch.get_rng_state()
    layer(torch.ones(16, 8)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("spec", [*SPECS, "csr:sparsity=0.5,values=int4"])
@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_on_the_meta_device_shapes_alone_are_computed(kind: str, spec: str) -> None:
    plain = nn.Linear(32, 8) if kind == "linear" else nn.MultiheadAttention(32, 4)
    layer, x = convert(plain, spec).to("meta"), torch.randn(4, 2, 32, device="meta")
    out = layer(x) if kind == "linear" else layer(x, x, x)[0]
    out.sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.device.type == "meta"
        assert parameter.grad.shape == parameter.shape
