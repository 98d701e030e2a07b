"""What once gave wrong gradients or held too much, found by a reader with fresh eyes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from actprune.graph import backend
from actprune.graph.plan import GraphPlan
from actprune_common.errors import InputError


def step(module: nn.Module, x: Tensor, **options: object) -> tuple[list[Tensor], GraphPlan]:
    """The gradients of a compiled step, and the plan of its graph."""
    torch._dynamo.reset()
    module.zero_grad()
    planned = backend(compiler="aot_eager", **options)  # type: ignore[arg-type]
    torch.compile(module, backend=planned)(x).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None], planned.plan.graphs[
        0
    ]


class Masked(nn.Module):
    """Logits that a mask of -inf goes over, before a log-softmax."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.linear, self.value = nn.Linear(64, 64), value

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((64, 64), self.value).triu(1)
        scores = self.linear(x) + mask
        out: Tensor = scores.log_softmax(-1)[:, :1].square().mean()
        return out


@pytest.mark.parametrize("value", [float("-inf"), torch.finfo(torch.float32).min])
def test_what_a_mask_has_made_infinite_has_no_codes(value: float) -> None:
    torch.manual_seed(0)
    module, x = Masked(value), torch.randn(64, 64)
    found, plan = step(module, x, keep="@*=>codes:bits=4")
    assert all(grad.isfinite().all() for grad in found)
    choices = {entry.producer: entry.choice for entry in plan.entries}
    assert not choices["aten._log_softmax.default"].startswith("codes")


class Identity(nn.Module):
    """A product whose factor is permuted by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.sigmoid().t()).permute(0, 1).cos().mean()


def test_a_factor_that_is_not_turned_is_no_weight_gradient() -> None:
    torch.manual_seed(0)
    module, x = Identity(), torch.randn(64, 64, dtype=torch.float64)  # read for this alone
    exact, _ = step(module, x)
    found, _ = step(module, x, keep="@*=>codes:bits=8")
    assert (found[0] - exact[0]).norm() < 0.05 * exact[0].norm()


def test_a_given_plan_is_held_to_the_limits() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1), nn.Flatten(0))

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x).mean()
            return out

    x, whole = torch.randn(256, 64), backend(compiler="aot_eager")
    model = Mean()
    torch._dynamo.reset()
    torch.compile(model, backend=whole)(x).backward()
    with pytest.raises(InputError, match=r"^budget: expected at least \d+ bytes, which the plan "):
        step(model, x, budget=1000, plan=whole.plan)
    with pytest.raises(InputError, match=r"^error: expected at least .*, which the spec errs by"):
        step(model, x, keep="@*=>codes:bits=2", error=1e-6)


def test_a_copy_of_a_backend_is_itself() -> None:
    """Lightning, once it is imported, copies what torch.compile is given."""
    whole = backend(0.5, compiler="aot_eager")
    assert copy.deepcopy({"backend": whole})["backend"] is whole


def test_a_spec_may_start_with_a_digit() -> None:
    assert backend("0.*@linear=>codes:bits=4;@*=>dense").settings.ruled
