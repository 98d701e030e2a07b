"""What `profile` measures is what errors do, and a model is left as it was."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune import InputError
from actprune.formats import Codes
from actprune.graph.compiling import Backend, backend
from actprune.graph.options import Errors, GraphErrors
from actprune.graph.plan import ABSENT, KEEP, RECOMPUTE
from actprune.graph.products import group_for
from actprune.graph.profiling import profile
from actprune_kernels import codes
from tests.twins import Net

BREAKS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def aot(fn: Callable[..., Any], *args: Any, **options: Any) -> Errors:
    return profile(fn, *args, compiler="aot_eager", **options)


def only(errors: Errors) -> GraphErrors:
    (found,) = errors.graphs.values()
    return found


def mlp(width: int = 64) -> nn.Module:
    parts = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.SiLU()
    return nn.Sequential(*parts)


def normed() -> nn.Module:
    parts = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    return nn.Sequential(*parts)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.SiLU(), nn.Linear(64, 8))


# What is measured


def decoded(x: Tensor, bits: int) -> Tensor:
    """What is read of a contiguous tensor's codes."""
    coding, group = codes.backend(x.device), group_for(x, Codes(bits=bits))
    kept = coding.pack(x, bits, group)
    found: Tensor = coding.unpack(kept, bits, group, x.numel(), x.dtype)
    return found.view(x.shape)


def test_weights_are_what_a_perturbation_by_hand_does() -> None:
    first, second = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(m: Net, x: Tensor) -> Tensor:
        out: Tensor = m.second(m.first(x).sin()).cos().sum()
        return out

    x = torch.randn(64, 32)
    given = only(aot(Net(forward, first=first, second=second), x))
    with torch.no_grad():
        h, grads = first(x), {}
        values = {"sin": h.sin(), "cos": h.cos(), "neg": -second(h.sin()).sin()}
        for wrong in ("none", *values):
            read = {name: decoded(v, 4) if name == wrong else v for name, v in values.items()}
            dh = (read["neg"] @ second.weight) * read["cos"]
            parts = read["neg"].t() @ read["sin"], read["neg"].sum(0), dh.t() @ x, dh.sum(0)
            grads[wrong] = torch.cat([part.flatten() for part in parts]).double()
    full = {name.partition("_")[0]: name for name in given.weights}
    assert set(full) == set(values)
    for name, value in values.items():
        error = float((decoded(value, 4) - value).norm() / value.norm())
        assert given.relative[full[name], "codes:bits=4"] == pytest.approx(error, rel=1e-5)
        off = float((grads[name] - grads["none"]).norm() / grads["none"].norm()) ** 2
        assert given.weights[full[name]] == pytest.approx(off / error**2, rel=1e-3)


def test_without_a_gradient_an_error_says_so() -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(InputError, match=r"^fn: nothing that it returns has a gradient$"):
        aot(frozen, torch.randn(3, 4))
    with pytest.raises(InputError, match=r"^fn: nothing that it returns has a gradient$"):
        aot(lambda x: None, torch.randn(3, 4))


def test_candidates_are_codes() -> None:
    with pytest.raises(InputError, match=r"^candidates: expected codes, such as codes:bits=4, got"):
        aot(mlp(), torch.randn(3, 64), candidates=["bsr:sparsity=0.5"])


# The model afterwards


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: part.clone() for name, part in model.state_dict().items()}


@pytest.mark.parametrize("given", [False, True])
def test_a_model_is_left_as_it_was(given: bool) -> None:
    model, x = normed(), torch.randn(4, 2, 12, 12, requires_grad=True)
    if given:
        for leaf in (x, *model.parameters()):
            leaf.grad = torch.full_like(leaf, 3.0)
    before, grads = snapshot(model), [p.grad for p in (x, *model.parameters())]
    aot(model, x)
    for name, part in model.state_dict().items():
        assert torch.equal(part, before[name]), name
    for leaf, grad in zip((x, *model.parameters()), grads, strict=True):
        assert leaf.grad is grad
        assert grad is None or torch.equal(grad, torch.full_like(grad, 3.0))


@BREAKS
def test_what_is_shared_is_put_back_to_what_it_was_first() -> None:
    """The same compiled code runs for two layers and updates the statistics of one twice."""
    norm, other = nn.BatchNorm1d(64), nn.BatchNorm1d(64)

    class Part(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.fc = norm, nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Any:
            torch._dynamo.graph_break()
            return self.fc(self.norm(x)).relu()

    model = nn.Sequential(Part(norm), Part(norm), Part(other), Part(norm))
    before = snapshot(model)
    aot(model, torch.randn(32, 64))
    for name, part in model.state_dict().items():
        assert torch.equal(part, before[name]), name


def test_random_numbers_go_on_as_if_nothing_was() -> None:
    model, x = dropping(), torch.randn(32, 64)
    state = torch.get_rng_state()
    aot(model, x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [normed, dropping])
def test_measuring_a_plan_leaves_everything_as_it_was(make: Callable[[], nn.Module]) -> None:
    """As the search does it, while a model is compiled."""
    model = make()
    x = torch.randn(4, 2, 20, 20) if make is normed else torch.randn(64, 64)
    found = only(aot(model, x))
    assert found.measured is not None
    before, state = snapshot(model), torch.get_rng_state()
    coarse = {name: "codes:bits=2" for name, _ in found.relative}
    assert found.measured({}) < 1e-6
    error = found.measured(coarse)
    assert 0.01 < error < 2
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)  # as training goes on
    assert found.measured(coarse) == error
    for name, part in model.state_dict().items():
        assert torch.equal(part, before[name]), name


def test_errors_are_of_the_parameters_as_they_are() -> None:
    model, x = mlp(), torch.randn(64, 64)

    def total(x: Tensor) -> Any:
        return model(x).sum()

    found = only(aot(total, x))
    assert found.measured is not None
    assert found.measured({}) < 1e-6
    with torch.no_grad():
        for part in model.parameters():
            part.mul_(1.5)
    assert found.measured({}) < 1e-6
    again = only(aot(total, x))
    assert again.measured is not None
    coarse = {name: "codes:bits=2" for name, _ in found.relative}
    assert found.measured(coarse) == pytest.approx(again.measured(coarse), rel=1e-5)


@BREAKS
def test_code_that_runs_several_times_is_measured_as_one_of_them() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Any:
            torch._dynamo.graph_break()
            return self.fc(x).sin()

    errors = aot(nn.Sequential(*(Part() for _ in range(3))), torch.randn(64, 64))
    for found in errors.graphs.values():
        assert found.measured is not None
        assert found.measured({}) < 1e-6


# Keys


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def by_itself(model: nn.Module) -> tuple[Callable[[Tensor], Any], Callable[[Backend], Any]]:
    return model, lambda planned: torch.compile(model, backend=planned)


class Around(nn.Module):
    """A Sequential's own forward is torch's code, which Module.compile leaves alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        """What is inside."""
        return self.inner(x)


def by_method(model: nn.Module) -> tuple[Callable[[Tensor], Any], Callable[[Backend], Any]]:
    whole = Around(model)

    def compiled(planned: Backend) -> Any:
        whole.compile(backend=planned)
        return whole

    return whole, compiled


def by_closure(model: nn.Module) -> tuple[Callable[[Tensor], Any], Callable[[Backend], Any]]:
    def loss(x: Tensor) -> Any:
        return F.mse_loss(model(x), torch.zeros_like(x))

    return loss, lambda planned: torch.compile(loss, backend=planned)


MODEL: nn.Module = nn.Identity()


def global_loss(x: Tensor) -> Tensor:
    """As a script has it."""
    return F.mse_loss(MODEL(x), torch.zeros_like(x))


def by_global(model: nn.Module) -> tuple[Callable[[Tensor], Any], Callable[[Backend], Any]]:
    globals()["MODEL"] = model
    return global_loss, lambda planned: torch.compile(global_loss, backend=planned)


WAYS = by_itself, by_method, by_closure, by_global


@pytest.mark.parametrize(
    "compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("way", WAYS)
def test_keys_are_those_of_the_backend(way: Callable[..., Any], compiler: str) -> None:
    """Whatever is compiled and however; of a larger batch, too."""
    model = mlp()
    fn, compiled = way(model)
    errors = profile(fn, torch.randn(32, 64), compiler=compiler)
    planned = backend(0.4, error=0.1, errors=errors, compiler=compiler)
    step = compiled(planned)
    x = torch.randn(96, 64)
    out = step(x)
    (out.square().mean() if out.dim() else out).backward()
    (graph,) = planned.plan.graphs
    assert {graph.key} == set(errors.graphs)
    measured = only(errors)
    assert set(measured.weights) <= {entry.name for entry in graph.entries}
    assert graph.held <= 0.4 * graph.dense
    assert {entry.choice for entry in graph.entries} - {KEEP, RECOMPUTE, ABSENT}


def test_a_smaller_batch_bounds_a_larger_one() -> None:
    model = mlp()
    errors = aot(model, torch.randn(64, 64))
    x = torch.randn(512, 64)
    planned = backend(0.3, error=0.08, errors=errors, compiler="aot_eager")
    torch.compile(model, backend=planned)(x).square().mean().backward()
    found = gradients(model)
    model.zero_grad()
    model(x).square().mean().backward()
    exact = gradients(model)
    assert float((found - exact).norm() / exact.norm()) <= 0.08 * 1.1


@BREAKS
def test_each_of_several_graphs_is_measured() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = mlp(), nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x).sigmoid()

    model, x = Broken(), torch.randn(64, 64)
    errors = aot(model, x)
    planned = backend(0.5, error=0.1, errors=errors, compiler="aot_eager")
    torch.compile(copy.deepcopy(model), backend=planned)(x).sum().backward()
    assert len(errors.graphs) == 2
    assert {graph.key for graph in planned.plan.graphs} == set(errors.graphs)
    assert all(found.weights for found in errors.graphs.values())
