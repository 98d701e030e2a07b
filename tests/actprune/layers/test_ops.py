"""The operators as torch sees them: opcheck, full-graph tracing, fake tensors."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import actprune
from actprune import convert, saved_bytes
from actprune.formats import BASELINES
from actprune.layers import ops

PRUNING = ["coo", "csr", "bsr"]
SPECS = [
    "dense",
    *(f"{name}:sparsity=0.5,scope={scope}" for name in PRUNING for scope in ("column", "row")),
    "bsr:block=1x32,sparsity=0.9,select=priority",
    "bsr:block=1x32,sparsity=0.5,select=priority,values=int4",
    "csr:sparsity=0.5,values=fp8",
    *BASELINES,
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
def test_opcheck(spec: str, dtype: torch.dtype) -> None:
    x, dy = torch.randn(40, 50).to(dtype), torch.randn(40, 6).to(dtype)
    draw = torch.tensor([0, 1, 2])
    torch.library.opcheck(ops.compress, (x, spec, draw))
    buffers = list(actprune.parse(spec).compress(x).buffers)
    torch.library.opcheck(ops.grad_weight, (buffers, dy, spec, 50))
    torch.library.opcheck(ops.to_dense, (buffers, spec, 40, 50, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_of_derivatives(dtype: torch.dtype) -> None:
    h = torch.randn(37).to(dtype)
    torch.library.opcheck(ops.derivative_codes, (h, 2, "silu"))
    torch.library.opcheck(ops.gelu_backward_, (h, ops.derivative_codes(h, 2, "silu"), 2, "silu"))


def test_no_graph_reaches_through_an_operator() -> None:
    x, dy = torch.randn(40, 50), torch.randn(40, 6, requires_grad=True)
    grad = actprune.parse("csr:sparsity=0.5,backend=naive").compress(x).grad_weight(dy)
    with pytest.warns(UserWarning, match=r"actprune::grad_weight: an autograd kernel was not"):
        torch.autograd.backward(grad.sum())
    assert dy.grad is None
    h = torch.randn(8)
    before = h._version
    ops.gelu_(h, 2)
    assert h._version > before


def _model(spec: str) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 10))
    return convert(model, spec)


@pytest.mark.parametrize("spec", SPECS)
def test_traces_in_one_graph(spec: str) -> None:
    x = torch.randn(8, 5, 64)
    torch.compiler.reset()  # all specs share the code, and torch counts what it compiled of it
    eager, model = _model(spec), _model(spec)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(3):  # a random selection goes on drawing
        eager.zero_grad()
        model.zero_grad()
        eager(x).square().sum().backward()
        compiled(x).square().sum().backward()
        for one, two in zip(eager.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad)


def test_no_recompilation_over_steps_or_specs() -> None:
    x = torch.randn(8, 5, 64)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        _model("bsr:block=1x32,sparsity=0.9,select=priority"), fullgraph=True, backend=counter
    )
    for _ in range(5):
        compiled(x).sum().backward()
    assert counter.frame_count == 1
    other = torch.compile(_model("bsr:block=4x8,sparsity=0.5"), fullgraph=True, backend=counter)
    other(x).sum().backward()
    assert counter.frame_count == 2


def test_a_draw_lies_where_its_layer_does() -> None:
    # else the first call moved it, and torch.compile compiled the second one anew: its guards hold
    # the device
    spec = "csr:select=priority,seed=3"
    plain, moved = nn.Linear(8, 2), convert(nn.Linear(8, 2), spec)
    with FakeTensorMode(allow_non_fake_inputs=True):
        plain.weight = nn.Parameter(torch.empty(2, 8, device="cuda"))
        assert convert(plain, spec).draw.device.type == "cuda"
        moved.draw = torch.empty(3, dtype=torch.int64, device="cuda")
        assert moved.cpu().draw.device.type == "cpu"
    meta = convert(nn.Linear(8, 2, device="meta"), spec)
    meta.to_empty(device="cpu")
    assert isinstance(meta.draw, torch.Tensor)
    assert meta.draw[::2].tolist() == [3, 0]


@pytest.mark.parametrize("spec", SPECS)
def test_fake_tensors_tell_the_saved_bytes(spec: str) -> None:
    model, x = _model(spec), torch.randn(8, 5, 64)
    real = saved_bytes(model, x)
    with FakeTensorMode():
        fake_model, fake_x = _model(spec), torch.empty(8, 5, 64)
        assert saved_bytes(fake_model, fake_x) == real
