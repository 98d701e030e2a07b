"""GELU and SiLU that keep few bits of their derivative, where a rule says so."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad as untyped_forward_ad
from torch.utils.checkpoint import checkpoint

from actprune import InputError, apply, convert, parse, read, saved_bytes, survey
from actprune.layers import ops
from actprune_kernels.gelu import BITS, NAMES, cell
from tests.twins import Net, assert_equal, log, lossless, step, twin

forward_ad: Any = untyped_forward_ad
TWO = "@activation=>derivative:bits=2;@*=>codes:bits=4"
FUNCTIONS: dict[str, Callable[..., Tensor]] = {"gelu": F.gelu, "silu": F.silu}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3),
    "every other": lambda x: x[..., ::2],
    "a half": lambda x: x.chunk(2, 1)[1],
    "expanded": lambda x: x[:1].expand(3, -1, -1, -1),
}


def rule(bits: int) -> str:
    return f"@activation=>derivative:bits={bits};@*=>codes:bits=4"


def stores(model: nn.Module) -> list[tuple[str, str]]:
    return [(saved.function, saved.store) for saved in log(model)]


def alone(function: Callable[[Tensor], Tensor], spec: str = TWO) -> nn.Module:
    """A function of what is computed, and so kept for nothing else."""
    return twin(Net(lambda m, x: function(x + m.shift), shift=torch.tensor(0.0)), spec)


def gradient(model: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of the input."""
    x = x.detach().requires_grad_()
    out = model(x)
    (found,) = torch.autograd.grad(out, x, grad)
    return out, found


def assert_within_half_a_cell(
    model: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor, bits: int, name: str
) -> None:
    """The output is dense's own, and the gradient as near as the levels of its derivative are."""
    grad = torch.randn_like(x).clamp(-4, 4)
    out, found = gradient(model, x, grad)
    assert torch.equal(out, function(x))
    assert out.stride() == function(x).stride()
    wide = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(function(wide), wide, grad.double())
    rounding = torch.finfo(x.dtype).eps * 8
    bound = (grad.double() * cell(bits, name) / 2).abs()
    assert bool(((found.double() - exact).abs() <= bound + rounding).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_is_within_half_a_cell(name: str, bits: int, dtype: torch.dtype) -> None:
    model, x = alone(FUNCTIONS[name], rule(bits)), (3 * torch.randn(37, 211)).to(dtype)
    assert_within_half_a_cell(model, FUNCTIONS[name], x, bits, name)
    assert stores(model) == [(name, f"derivative:bits={bits}")]
    assert [(each.nbytes, each.held) for each in log(model)] == [
        (x.nbytes, -(-x.numel() * bits // 8))
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_of_any_layout(name: str, layout: str) -> None:
    x, function = 2 * torch.randn(3, 18, 14, 26), FUNCTIONS[name]
    net = Net(lambda m, x: function(LAYOUTS[layout](x * m.one)), one=torch.ones(1))
    model = twin(net, rule(4))
    grad = torch.randn_like(net(x)).transpose(0, 1).contiguous().transpose(0, 1)
    out, found = gradient(model, x, grad)
    assert torch.equal(out, net(x))
    assert out.stride() == net(x).stride()
    _, exact = gradient(net.double(), x.double(), grad.double())
    places = LAYOUTS[layout](torch.arange(x.numel()).view(x.shape)).flatten().tolist()
    summed = len(places) / len(set(places))
    bound = cell(4, name) / 2 * summed * float(grad.abs().max()) + 1e-5
    assert float((found.double() - exact).abs().max()) <= bound
    assert (name, "derivative:bits=4") in stores(model)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 5000), bits=st.sampled_from(BITS), name=st.sampled_from(NAMES))
def test_a_gradient_of_any_size(n: int, bits: int, name: str) -> None:
    model, x = alone(FUNCTIONS[name], rule(bits)), torch.randn(n)
    assert_within_half_a_cell(model, FUNCTIONS[name], x, bits, name)
    is_small = x.nbytes <= 4096
    assert stores(model) == [(name, "small" if is_small else f"derivative:bits={bits}")]


def test_an_activation_in_place() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.b(F.silu(m.a(x), inplace=True))

    net = Net(forward, a=nn.Linear(40, 96), b=nn.Linear(96, 3))
    other, x = twin(net, TWO), torch.randn(70, 40)
    expected, found = step(net, x), step(other, x)
    assert torch.equal(found["output"], expected["output"])
    assert stores(other)[1:] == [("silu", "derivative:bits=2"), ("linear", "codes:bits=4")]
    apart = Net(lambda m, x: m.b(F.silu(m.a(x))), a=net.a, b=net.b)
    assert_equal(found, step(twin(apart, TWO), x))


def test_an_activation_in_place_of_a_half() -> None:
    def forward(m: Any, x: Tensor, inplace: bool) -> Any:
        h = m.a(x)
        gate = F.silu(h[:, :48], inplace=inplace)
        return m.b(gate * h[:, 48:])

    net = Net(forward, a=nn.Linear(40, 96), b=nn.Linear(48, 3))
    other, x = twin(net, "@activation=>derivative:bits=4"), torch.randn(70, 40)
    assert_equal(step(other, x, True), step(other, x, False))
    assert ("silu", "derivative:bits=4") in stores(other)
    assert torch.equal(step(other, x, True)["output"], step(net, x, True)["output"])


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(32, 96), nn.Linear(32, 96), nn.Linear(96, 32)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


def test_swiglu_keeps_the_derivative_of_its_gate() -> None:
    model, x = SwiGLU(), torch.randn(64, 32)
    found = survey(model, x, "@activation=>derivative:bits=4;@*=>codes:bits=8")
    assert [(each.function, each.store) for each in found.saved] == [
        ("linear", "alive anyway"),
        ("silu", "derivative:bits=4"),
        ("linear", "alive anyway"),
        ("mul", "codes:bits=8"),
        ("mul", "codes:bits=8"),
        ("linear", "again by mul"),
    ]
    assert found.saved[1].held == 64 * 96 // 2
    assert 0 < found.saved[1].error < 0.06  # type: ignore[operator]
    assert 0 < found.error < 0.06


@pytest.mark.parametrize(
    ("function", "store"),
    [
        (torch.tanh, "codes:bits=4; no derivative of tanh"),
        (F.softplus, "codes:bits=4; no derivative of softplus"),
        (lambda h: F.gelu(h, approximate="tanh"), "codes:bits=4; no derivative of gelu by tanh"),
        (lambda h: F.gelu(input=h), "derivative:bits=2"),
        (lambda h: F.gelu(h, approximate="none"), "derivative:bits=2"),
        (lambda h: torch.ops.aten.gelu(h), "derivative:bits=2"),
        (nn.GELU(), "derivative:bits=2"),
        (nn.SiLU(), "derivative:bits=2"),
    ],
)
def test_what_has_no_derivative_is_left_to_the_next_rule_and_named(
    function: Callable[[Tensor], Tensor], store: str
) -> None:
    model = alone(function)
    gradient(model, torch.randn(70, 40), torch.ones(70, 40))
    assert [kept for _, kept in stores(model)] == [store]
    dense = alone(function, "@activation=>derivative:bits=2")
    gradient(dense, torch.randn(70, 40), torch.ones(70, 40))
    assert [kept for _, kept in stores(dense)] == [store.replace("codes:bits=4", "dense")]


def test_what_costs_nothing_stays() -> None:
    x = torch.randn(70, 40)

    def forward(m: Any, x: Tensor) -> Any:
        return m.b(F.gelu(F.layer_norm(m.a(x), (40,)))) + F.gelu(x) + F.gelu(m.w)

    net = Net(
        forward, a=nn.Linear(40, 40), b=nn.Linear(40, 40), w=nn.Parameter(torch.randn(70, 40))
    )
    other = twin(net, TWO)
    with lossless():
        assert_equal(step(other, x.requires_grad_()), step(net, x))
    assert [kept for name, kept in stores(other) if name == "gelu"] == [
        "again by layer_norm",
        "alive anyway",
    ]
    # a rule that keeps what enters a norm dense would hold more than the codes do
    step(dense := twin(net, "@activation=>derivative:bits=2"), x)
    assert ("gelu", "derivative:bits=2") in stores(dense)


def test_without_a_gradient_nothing_is_kept() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        with torch.no_grad():
            h = F.gelu(m.a(x))
        return m.b(h + F.gelu(m.c(x).detach()))

    parts = {name: nn.Linear(40, 40) for name in "abc"}
    other = twin(Net(forward, **parts), TWO)
    step(other, torch.randn(70, 40))
    assert "gelu" not in [name for name, _ in stores(other)]


def test_rules_name_modules_as_others_do() -> None:
    blocks = [[nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 40), nn.SiLU()] for _ in range(2)]
    model = nn.Sequential(*(nn.Sequential(*block) for block in blocks))
    other = twin(model, "1.1@activation=>dense;1@activation=>derivative:bits=4;@*=>codes:bits=8")
    step(other, torch.randn(70, 40))
    assert [kept for name, kept in stores(other) if name in NAMES] == [
        *("codes:bits=8", "codes:bits=8"),
        *("dense", "derivative:bits=4"),
    ]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_within_calls_the_function_itself(reentrant: bool) -> None:
    net = Net(
        lambda m, x: m.c(F.silu(m.d(checkpoint(m.inner, x, use_reentrant=reentrant)))),
        inner=nn.Sequential(nn.Linear(40, 90), nn.GELU(), nn.Linear(90, 40)),
        d=nn.Linear(40, 40),
        c=nn.Linear(40, 4),
    )
    other, x = twin(net, TWO), torch.randn(70, 40, requires_grad=True)
    found, expected = step(other, x), step(net, x)
    assert torch.equal(found["output"], expected["output"])
    assert ("silu", "derivative:bits=2") in stores(other)
    assert "gelu" not in [name for name, _ in stores(other)]
    assert_equal(found, expected, 0.3)


def test_a_checkpoint_around_repeats_it() -> None:
    net = nn.Sequential(nn.Linear(40, 90), nn.GELU(), nn.Linear(90, 4))
    other = twin(net, TWO)
    around = Net(lambda m, x: checkpoint(m.net, x, use_reentrant=False), net=other)
    x = torch.randn(70, 40)
    found = {name.replace("net.", ""): each for name, each in step(around, x).items()}
    assert_equal(found, step(other, x))


def test_a_gradient_of_a_gradient_is_refused() -> None:
    other = twin(
        Net(lambda m, x: m.b(F.silu(m.a(x))), a=nn.Linear(40, 40), b=nn.Linear(40, 1)), TWO
    )
    x = torch.randn(70, 40, requires_grad=True)
    text = "^gradient: that of silu's input was differentiated again, .* MODULE@activation=>dense"
    with pytest.raises(InputError, match=text):
        torch.autograd.grad(other(x).sum(), x, create_graph=True)
    (grad,) = torch.autograd.grad(other(x).sum(), x)
    assert_equal(
        {"gradient": grad.detach()}, {"gradient": gradient(other, x, torch.ones(70, 1))[1]}
    )


def test_a_term_of_a_second_derivative_is_not_dropped_in_silence() -> None:
    """The path that tanh leaves to x would give a second derivative without GELU's term."""
    net = Net(lambda m, x: F.gelu(m.b(m.a(x).tanh())), a=nn.Linear(40, 40), b=nn.Linear(40, 40))
    x = torch.randn(70, 40, requires_grad=True)
    with pytest.raises(InputError, match=r"^gradient: that of gelu's input"):
        torch.autograd.grad(twin(net, TWO)(x).sum(), x, create_graph=True)


def test_many_gradients_at_once() -> None:
    model, x = alone(F.gelu), torch.randn(70, 40, requires_grad=True)
    out, grads = model(x), torch.randn(3, 70, 40)
    (found,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    for one, grad in zip(found, grads, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(out, x, grad, retain_graph=True)[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_gradients_in_forward_mode_are_exact() -> None:
    x, tangent = torch.randn(70, 40, requires_grad=True), torch.randn(70, 40)
    found = []
    for model in (alone(F.gelu), Net(lambda m, x: F.gelu(x + 0))):
        with forward_ad.dual_level():
            out = model(forward_ad.make_dual(x, tangent))
            found.append(forward_ad.unpack_dual(out).tangent)
    assert torch.equal(*found)


@pytest.mark.parametrize("around", [nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_step_under_autocast(around: Callable[[], AbstractContextManager[Any]]) -> None:
    net = nn.Sequential(nn.Linear(40, 90), nn.GELU(), nn.Linear(90, 40), nn.SiLU())
    other, x = twin(net, "@activation=>derivative:bits=4;@*=>codes:bits=8"), torch.randn(70, 40)
    found, expected = step(other, x, around=around), step(net, x, around=around)
    assert torch.equal(found["output"], expected["output"])
    assert_equal(found, expected, 0.1)
    assert [kept for name, kept in stores(other) if name in NAMES] == ["derivative:bits=4"] * 2


def test_sizes_alone() -> None:
    with FakeTensorMode():
        model = apply(nn.Sequential(nn.Linear(40, 90), nn.GELU(), nn.Linear(90, 40)), TWO)
        model(torch.empty(70, 40)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_codes_go_with_the_graph_and_with_its_backward_pass() -> None:
    kept: list[weakref.ref[torch.UntypedStorage]] = []
    codes = ops.derivative_codes

    def watched(*args: Any) -> Tensor:
        made: Tensor = codes(*args)
        kept.append(weakref.ref(made.untyped_storage()))
        return made

    layers = nn.Linear(40, 400), nn.GELU(), nn.Linear(400, 4)
    model, x = apply(nn.Sequential(*layers), TWO), torch.randn(90, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "derivative_codes", watched)
        loss = model(x).sum()
        gc.disable()
        try:
            assert kept[0]() is not None
            loss.backward()
            assert kept[0]() is None
            loss = model(x).sum()
            del loss
            assert kept[1]() is None
        finally:
            gc.enable()


def test_saved_bytes_are_those_that_the_survey_tells() -> None:
    model, x = nn.Sequential(nn.Linear(40, 400), nn.GELU(), nn.Linear(400, 40)), torch.randn(90, 40)
    assert saved_bytes(apply(model, TWO), x) == survey(model, x).held


@pytest.mark.parametrize("make", [parse, lambda spec: convert(nn.Linear(4, 4), spec), read])
def test_no_matrix_is_stored_so(make: Callable[[str], object]) -> None:
    text = r"^spec: derivative .* stores no matrix: .* @activation=>derivative:bits=4$"
    with pytest.raises(InputError, match=text):
        make("derivative:bits=4")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            "@linear=>derivative",
            "derivative serves @activation alone.*'derivative:bits=2' for @lin",
        ),
        ("@*=>derivative:bits=2", r"derivative serves @activation alone.*for @\*$"),
        ("@activation=>csr", "csr serves what .*@activation takes dense, codes or derivative, got"),
        ("@activation=>derivative:bits=3", "^bits: expected .*2.*4.* got 3"),
        ("@activation=>derivative:group=3", "derivative takes the options bits; got 'group'"),
        ("*=>derivative;@*=>codes", "stores no matrix"),
        ("@activation=>derivation", "expected a format of dense, .*, derivative, got 'derivation'"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(spec: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read(spec)
    assert read("@activation=>derivative").spec == "@activation=>derivative:bits=2"


def test_hooks_within_get_the_input() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.neg(), lambda t: t.neg()):
            return F.gelu(m.a(x))

    net, x = Net(forward, a=nn.Linear(40, 40)), torch.randn(70, 40)
    assert_equal(step(twin(net, TWO), x), step(net, x))


def test_a_model_with_such_a_rule_is_copied() -> None:
    model, x = nn.Sequential(nn.Linear(40, 90), nn.GELU(), nn.Linear(90, 4)), torch.randn(70, 40)
    made = apply(model, TWO)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert_equal(step(other, x), step(made, x))
