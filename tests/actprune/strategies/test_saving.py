"""Rules on what autograd saves: their text, how they are applied, what goes on around."""

import copy
import inspect
import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from actprune import InputError, apply, pruned, read, saved_bytes, survey, undo
from actprune.strategies.base import replacements
from actprune.strategies.saving import Saving, Within
from tests.ranks import torchrun
from tests.twins import Net, assert_equal, log, lossless, same_step, step, twin

RULE = "@*=>codes:bits=4"


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.Tanh())


def rows(requires_grad: bool = False) -> Tensor:
    return torch.randn(6, 8, requires_grad=requires_grad)


@pytest.mark.parametrize(
    "spec",
    [
        RULE,
        "0@linear=>dense;@*=>codes:bits=4",
        "*.attn@linear=>csr:sparsity=0.5;@conv=>codes:bits=2;@*=>codes:bits=8,group=64",
        "recompute+@*=>codes:bits=4",
        "bf16+@linear=>bsr:block=1x8,sparsity=0.5;*=>dense",
    ],
)
def test_a_spec_reads_itself_back(spec: str) -> None:
    text = read(spec).spec
    assert read(text).spec == text
    assert read(text) == read(spec)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("@lienar=>dense", "one of linear, conv, norm, activation, attention, rest or .*'@lienar'"),
        ("@=>dense", "one of linear, .*'@'"),
        ("@norm=>csr:sparsity=0.5", "csr serves what linear and conv save.*@norm takes dense or"),
        ("@*=>bsr", "bsr serves what linear and conv save"),
        ("@*", "expected @KIND=>FORMAT, got '@\\*'"),
        ("@linear", "expected @KIND=>FORMAT"),
        ("nothing@linear=>dense", "'nothing' matches no module of the model"),
        ("@*=>codes;@*=>dense", "given twice"),
        ("@*=>codes:bits=3", "bits"),
        ("recompute+csr", "recompute expects rules with @"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong_and_leaves_the_model(spec: str, text: str) -> None:
    model = mlp()
    with pytest.raises(InputError, match=text):
        apply(model, spec)
    assert not any(replacements(module) for module in model.modules())


def test_rules_hold_within_the_modules_that_they_name() -> None:
    model = nn.Sequential(mlp(), mlp())
    other = same_step(model, rows(), spec="1.0@linear=>dense;1@activation=>dense;@*=>codes:bits=4")
    stores = [(saved.function, saved.store) for saved in log(other)]
    assert stores == [
        ("linear", "alive anyway"),
        ("gelu", "kept"),
        ("linear", "again by gelu"),
        ("tanh", "kept"),
        ("linear", "dense"),
        ("gelu", "dense"),
        ("linear", "again by gelu"),
        ("tanh", "dense"),
    ]


def test_apply_twice_and_undo() -> None:
    model = apply(apply(mlp(), "0@linear=>dense;@*=>codes:bits=8"))
    assert [len(replacements(module)) for module in model.modules()] == [1, 0, 0, 0, 0]
    undo(model)
    assert not any("forward" in vars(module) for module in model.modules())


def _pickled(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))


def _saved(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled, _saved])
def test_a_copy_goes_its_own_way(copied: Callable[[nn.Module], Any]) -> None:
    model = apply(mlp())
    other = copied(model)
    assert replacements(other)[0].module is other
    vars(other)["forward"].log = []
    step(other, rows())
    assert len(log(other)) == 4
    assert vars(model)["forward"].log is None
    assert other.state_dict().keys() == mlp().state_dict().keys()
    mlp().load_state_dict(model.state_dict())


def block(m: Net, x: Tensor) -> Any:
    return F.gelu(m.b(F.dropout(F.layer_norm(m.a(x), (8,)), 0.3, m.training))) * x


def net(function: Callable[..., Any] = block) -> Net:
    return Net(function, a=nn.Linear(8, 8), b=nn.Linear(8, 8))


class Checkpointed(nn.Module):
    """A model within a checkpoint."""

    def __init__(self, model: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.model, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_within_and_around(reentrant: bool) -> None:
    def within(m: Net, x: Tensor) -> Any:
        return checkpoint(lambda y: block(m, y), m.a(x).tanh(), use_reentrant=reentrant) * 2

    same_step(net(within), rows(requires_grad=True), tolerance=1e-6)
    model, x = net(), rows(requires_grad=True)
    other = twin(model)
    with lossless():
        found = step(Checkpointed(other, reentrant), x)
    assert_equal(found, step(Checkpointed(model, reentrant), x), 1e-6)


def test_a_model_that_trains_in_eval_mode_and_without_gradients() -> None:
    model = net().eval()
    other = same_step(model, rows())
    before = len(log(other))
    with torch.no_grad():
        torch.testing.assert_close(other(x := rows()), model(x), rtol=0, atol=0)
    assert len(log(other)) == before > 3


def test_functorch_computes_as_without() -> None:
    model = net(lambda m, x: m.b(F.gelu(m.a(x))))
    other, x = twin(model), rows()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def per_sample(model: nn.Module) -> Any:
        def loss(weights: dict[str, Tensor], row: Tensor) -> Any:
            return functional_call(model, weights, (row,)).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(weights, x)

    assert_equal(per_sample(other), per_sample(model))
    given = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    with lossless():
        functional_call(other, given, (x,)).sum().backward()
    assert [saved.store for saved in log(other)] == ["alive anyway", "kept", "again by gelu"]


def test_an_error_in_a_forward_pass_leaves_nothing_behind() -> None:
    def caught(m: Net, x: Tensor) -> Any:
        h = m.a(x).tanh()
        for wrong in (h[:, :3], h.double()):
            with pytest.raises(RuntimeError):
                m.b(wrong)
        return m.b(h).exp()

    same_step(net(caught), rows())
    model = net(lambda m, x: m.b(m.a(x)[:, : len(x)]).exp())
    other = twin(model, "a@*=>codes:bits=8;@*=>codes:bits=4")
    with pytest.raises(RuntimeError):
        other(rows())
    assert not torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    x = torch.randn(8, 8)
    with lossless():
        found = step(other, x)
    assert_equal(found, step(model, x))


def test_threads_do_not_mix() -> None:
    model = net(lambda m, x: m.b(F.gelu(m.a(x))))
    other, x, found = twin(model), rows(), []

    def work() -> None:
        for _ in range(20):
            loss = other(x).square().sum()
            found.append(torch.autograd.grad(loss, list(other.parameters()))[0])

    with lossless():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (expected, *_) = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    assert len(found) == 80
    for each in found:
        torch.testing.assert_close(each, expected)


def test_sizes_alone() -> None:
    with FakeTensorMode():
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(8 * 15 * 15, 64), nn.Dropout(), nn.LayerNorm(64), nn.Linear(64, 8),
        )  # fmt: skip
        apply(model)(torch.randn(64, 3, 32, 32)).sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_a_compiled_model_is_refused() -> None:
    models: list[Any] = [torch.compile(apply(mlp()), backend="eager"), apply(mlp())]
    models += [torch.compile(nn.Sequential(mlp(), apply(mlp())), backend="eager")]
    models[1].compile(backend="eager")
    for model in models:
        with pytest.raises(RuntimeError, match=r"torch\.compile: rules on what autograd saves"):
            model(rows())
    step(apply(mlp()), rows())


def test_kinds_of_replacements() -> None:
    model = apply(mlp(), "0@linear=>dense;@*=>codes:bits=4")
    assert [type(one) for one in replacements(model)] == [Saving]
    assert [type(one) for one in replacements(model[0])] == [Within]


def test_ranks_compute_what_one_process_does() -> None:
    script = Path(__file__).parents[2] / "saving_ranks.py"
    assert torchrun(2, script).count("the same") == 2


def test_what_is_refused_leaves_the_model_as_it_was() -> None:
    model = apply(nn.Sequential(nn.Linear(8, 8)), "csr:sparsity=0.5")
    with pytest.raises(InputError, match="'blocks' matches no module"):
        apply(model, "blocks@linear=>dense;@*=>codes:bits=4")
    assert [layer.spec for layer in pruned(model).values()] == ["csr:sparsity=0.5"]


def test_saved_bytes_are_those_that_the_survey_tells() -> None:
    model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
    x = torch.randn(512, 256, requires_grad=True)
    dense, held = saved_bytes(model, x), survey(model, x).held
    assert saved_bytes(apply(model), x) == held < 0.07 * dense


def test_a_random_store_is_the_same_in_a_step_that_is_repeated() -> None:
    spec = "@linear=>bsr:block=1x8,sparsity=0.5,select=priority"
    model, x = apply(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), spec), torch.randn(64, 64)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(x.clone().requires_grad_()).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == 4
    assert all(map(torch.equal, *gradients))


def test_recompute_runs_products_again() -> None:
    model, x = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU()), torch.randn(128, 64)
    x.requires_grad_()
    plain, again = (survey(model, x, f"{more}@*=>codes:bits=4") for more in ("", "recompute+"))
    assert [saved.store for saved in plain.saved if saved.function == "gelu"] == ["codes:bits=4"]
    assert [saved.store for saved in again.saved if saved.function == "gelu"] == ["again by linear"]
    assert again.held < 0.4 * plain.held


def test_a_forward_tells_the_inputs_of_the_one_that_it_replaces() -> None:
    class Named(nn.Linear):
        def forward(self, input: Tensor, scale: float = 1.0) -> Tensor:
            return super().forward(input) * scale

    model = Named(8, 8)
    expected = inspect.signature(model.forward)
    assert inspect.signature(apply(model, "bf16+@*=>codes:bits=4").forward) == expected
    assert list(expected.parameters) == ["input", "scale"]


def test_a_container_without_a_forward_is_refused() -> None:
    with pytest.raises(InputError, match="expected one whose forward training calls, got Module"):
        apply(nn.ModuleList([nn.Linear(8, 8)]))


@pytest.mark.parametrize("order", [("b", "norm"), ("norm", "b")])
def test_a_tensor_of_two_kinds_has_the_bits_of_the_finer_rule(order: tuple[str, str]) -> None:
    def function(net: Any, x: Tensor) -> Any:
        h = net.a(x) * 1.5
        return getattr(net, order[0])(h) + getattr(net, order[1])(h)

    linear, other, norm = nn.Linear(96, 96), nn.Linear(96, 96), nn.LayerNorm(96)
    net = Net(function, a=linear, b=other, norm=norm)
    found = twin(net, "@norm=>codes:bits=8;@*=>codes:bits=4")
    step(found, torch.randn(64, 96))
    of = {each.function: each for each in log(found) if each.held > 1000 or "shares" in each.store}
    eight, four = 64 * (96 + 8), 64 * (48 + 4)
    assert of["layer_norm"].error is not None
    assert of["layer_norm"].error < 0.01
    h = [each for each in log(found) if each.function == "linear"][1]
    if order[0] == "norm":
        assert (of["layer_norm"].held, h.store) == (eight, "shares codes:bits=8")
    else:
        assert (h.held, of["layer_norm"].held) == (four, eight - four)


def test_what_comes_of_few_bits_is_not_made_again_for_a_rule_of_more() -> None:
    net = Net(lambda m, x: m.b(m.norm(m.a(x))), a=nn.Linear(96, 96), b=nn.Linear(96, 96))
    net.norm = nn.LayerNorm(96)
    seen = {}
    for spec in ("@linear=>codes:bits=8;@*=>codes:bits=4", "@*=>codes:bits=4"):
        found = twin(net, spec)
        step(found, torch.randn(64, 96))
        seen[spec[1:2]] = [each for each in log(found) if each.function == "linear"][-1]
    assert seen["*"].store == "again by layer_norm"
    assert seen["l"].store == "codes:bits=8"
    assert seen["l"].error is not None
    assert seen["l"].error < 0.01
