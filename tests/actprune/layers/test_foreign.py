"""Layers where they meet more of torch: its transforms, its tracers, nested tensors."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad as untyped_forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap

import actprune
from actprune import PrunedLinear, convert, saved_bytes

forward_ad: Any = untyped_forward_ad
SPEC = "bsr:block=1x4,sparsity=0.5,select=priority"


def pair() -> tuple[nn.Module, nn.Module]:
    """A pruned model and its dense twin."""
    plain = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 2))
    return convert(copy.deepcopy(plain), SPEC), plain


def attention() -> tuple[nn.Module, nn.Module]:
    plain = nn.MultiheadAttention(8, 2, batch_first=True)
    return convert(copy.deepcopy(plain), SPEC), plain


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_per_sample_are_exact(compiled: bool) -> None:
    found, x = [], torch.randn(5, 8)
    torch._dynamo.reset()
    for model in pair():

        def loss(parameters: dict[str, Tensor], x: Tensor, model: nn.Module = model) -> Tensor:
            out: Tensor = functional_call(model, parameters, (x,))
            return out.square().sum()

        each = vmap(grad(loss), (None, 0))
        each = torch.compile(each, backend="aot_eager", fullgraph=True) if compiled else each
        found.append(each(dict(model.named_parameters()), x))
    for name, expected in found[1].items():
        assert expected.shape[0] == 5
        torch.testing.assert_close(found[0][name], expected)


# torch: its own jvp of tanh does it
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_other_transforms_are_exact() -> None:
    model, plain = pair()
    x, tangent = torch.randn(2, 3, 8)
    for one, two in zip(jvp(model, (x,), (tangent,)), jvp(plain, (x,), (tangent,)), strict=True):
        torch.testing.assert_close(one, two)
    torch.testing.assert_close(jacrev(model)(x), jacrev(plain)(x))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        one, two = (forward_ad.unpack_dual(each(dual)).tangent for each in (model, plain))
        torch.testing.assert_close(one, two)


def test_batches_of_gradients_are_those_one_by_one() -> None:
    model, plain = pair()
    x, weight = torch.randn(3, 8), next(model.parameters())
    out = model(x)
    grads = torch.eye(6).view(6, 3, 2)

    def one(grad_output: Tensor) -> Tensor:
        return torch.autograd.grad(out, weight, grad_output, retain_graph=True)[0]

    expected = torch.stack([one(grad_output) for grad_output in grads])
    torch.testing.assert_close(vmap(one)(grads), expected)
    (found,) = torch.autograd.grad(out, weight, grads, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(found, expected)
    jacobian: Any = torch.autograd.functional.jacobian
    ours, theirs = (jacobian(each, x, vectorize=True) for each in (model, plain))
    torch.testing.assert_close(ours, theirs)


def test_attention_within_transforms_is_exact() -> None:
    x = torch.randn(3, 5, 8)

    def loss(parameters: dict[str, Tensor], x: Tensor, model: nn.Module) -> Tensor:
        out: Tensor = functional_call(model, parameters, (x, x, x))[0]
        return out.square().sum()

    found = [
        vmap(grad(lambda p, x, m=model: loss(p, x, m)), (None, 0))(
            dict(model.named_parameters()), x
        )
        for model in attention()
    ]
    for name, expected in found[1].items():
        torch.testing.assert_close(found[0][name], expected)


def test_fx_calls_the_layers_as_it_does_torch_s() -> None:
    model, plain = pair()
    traced = fx.symbolic_trace(model)
    calls = [(node.op, node.target) for node in traced.graph.nodes]
    assert calls == [(node.op, node.target) for node in fx.symbolic_trace(plain).graph.nodes]
    assert isinstance(traced.get_submodule("0"), PrunedLinear)
    x = torch.randn(6, 8)
    traced(x).sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for ours, parameter in zip(found, model.parameters(), strict=True):
        assert torch.equal(ours, parameter.grad)  # type: ignore[arg-type]


def test_fx_calls_attention_as_a_whole() -> None:
    class Around(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x, x, x, need_weights=False)[0]
            return out

    model, x = Around(attention()[0]), torch.randn(2, 5, 8)
    traced = fx.symbolic_trace(model)
    assert torch.equal(traced(x), model(x))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["inner"]


# torch: both are deprecated in favour of torch.export, and say so
@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")
def test_a_jit_trace_is_the_plain_model_s() -> None:
    x = torch.randn(6, 8)
    for model, plain in (pair(), pair()):
        traced: Any = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]
        assert "actprune::" not in str(traced.inlined_graph)
        torch.testing.assert_close(traced(x), plain(x))
        model.eval()


def test_an_exported_program_is_the_plain_model_s() -> None:
    model, plain = pair()
    x = torch.randn(6, 8)
    found = [torch.export.export(each, (x,), strict=True) for each in (model, plain)]
    calls = [[n.target for n in p.graph.nodes if n.op == "call_function"] for p in found]
    assert calls[0] == calls[1]


def ragged(layout: torch.layout) -> Tensor:
    torch.manual_seed(0)
    parts = [torch.randn(length, 8) for length in (3, 1, 4)]
    return torch.nested.nested_tensor(parts, layout=layout, requires_grad=True)


def test_jagged_tensors_are_kept_compressed() -> None:
    exact = convert(nn.Linear(8, 8), "bsr:block=1x4,sparsity=0")
    plain = actprune.revert(copy.deepcopy(exact))
    found = []
    for each in (exact, plain):
        x = ragged(torch.jagged)
        out = x + each(x)  # equally ragged
        values: Tensor = out.values()
        values.square().sum().backward()  # type: ignore[no-untyped-call]
        of_input: Any = x.grad
        found.append([values, *(p.grad for p in each.parameters()), of_input.values()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    x = ragged(torch.jagged).detach()
    assert saved_bytes(convert(exact, "bsr:block=1x4,sparsity=0.5"), x) < saved_bytes(plain, x)


# torch: says that strided ones are a prototype
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_other_nested_tensors_are_torch_s() -> None:
    model, plain = convert(nn.Linear(8, 2), SPEC), nn.Linear(8, 2)
    plain.load_state_dict(model.state_dict())
    for each in (model, plain):
        out = each(ragged(torch.strided))
        sum(part.square().sum() for part in out.unbind()).backward()
    torch.testing.assert_close(model.weight.grad, plain.weight.grad)
