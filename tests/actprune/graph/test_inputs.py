"""What one graph makes for the next: it is held in codes there, counts, and gradients stay."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import actprune.graph
from actprune.graph.compiling import backend
from actprune.graph.plan import KEEP
from actprune.graph.values import passed_activations
from benchmarks.scripts.graph_steps import allocated
from tests.planned import assert_same, chosen, first_of, graphs, train

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
"""torch looks at what it compiles after a graph break."""
ROWS, WIDTH = 64, 64
BYTES = ROWS * WIDTH * 8


class Broken(nn.Module):
    """Two graphs, the second of which needs its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The sine of a product, whose factor is an activation of what the first graph made."""
        h = self.first(x)
        torch._dynamo.graph_break()
        out: Tensor = self.second(F.gelu(h))
        return out.sin()


def broken() -> tuple[nn.Module, tuple[Tensor]]:
    return Broken().double(), (torch.randn(ROWS, WIDTH, dtype=torch.float64),)


def test_an_input_of_another_graph_is_in_the_plan() -> None:
    model, inputs = broken()
    planned = backend(compiler="aot_eager")
    train(model, inputs, planned, steps=1)
    first, second = planned.plan.graphs
    (entry,) = (each for each in second.entries if each.producer == "input")
    assert (entry.nbytes, entry.choice, entry.held) == (BYTES, KEEP, BYTES)
    assert second.dense == 3 * BYTES  # it, its activation and the product
    assert not [each for each in first.entries if each.producer == "input"]  # the model's own


@pytest.mark.parametrize("choice", [KEEP, "codes:bits=8"])
def test_gradients_are_those_of_eager_mode(choice: str) -> None:
    model, inputs = broken()
    planned = chosen(graphs(model, inputs), first_of(choice, KEEP))
    tolerance = 1e-12 if choice == KEEP else 0.1
    assert_same(train(model, inputs, planned), train(model, inputs), tolerance)
    held = sum(graph.held for graph in planned.plan.graphs)
    dense = sum(graph.dense for graph in planned.plan.graphs)
    assert held == dense if choice == KEEP else held < 0.2 * dense


def total(run: Any, x: Tensor) -> Tensor:
    out: Tensor = run(x).sum()
    return out


def test_codes_stand_for_it_between_the_passes() -> None:
    """The first graph returns it; nobody else has it when the forward pass ends."""
    model, (x,) = broken()
    alive = {}
    for choice in (KEEP, "codes:bits=4"):
        planned = chosen(graphs(model, (x,)), first_of(choice, KEEP))
        torch._dynamo.reset()
        run = torch.compile(model, backend=planned)
        run(x).sum().backward()
        alive[choice], _ = allocated(model, partial(total, run, x))
        assert alive[choice] == sum(graph.held for graph in planned.plan.graphs)
    assert alive["codes:bits=4"] < alive[KEEP] / 6


def test_a_plan_with_such_an_input_is_followed_and_printed() -> None:
    model, inputs = broken()
    planned = backend(0.2, compiler="aot_eager")
    train(model, inputs, planned, steps=1)
    text = str(planned.plan)
    assert "input" in text
    again = backend(plan=planned.plan, compiler="aot_eager")
    assert_same(train(model, inputs, again), train(model, inputs, planned))
    assert [graph.entries for graph in again.plan.graphs] == [
        g.entries for g in planned.plan.graphs
    ]


def test_errors_of_such_an_input_are_measured() -> None:
    model, (x,) = broken()
    errors = actprune.graph.profile(model.float(), x.float(), compiler="aot_eager")
    names = [set(graph.weights) for graph in errors.graphs.values()]
    assert any(name.startswith("primals") for found in names for name in found)


def test_parameters_batches_and_what_has_no_gradient_are_none() -> None:
    weight, x = nn.Parameter(torch.ones(2)), torch.ones(2)
    assert passed_activations(
        [weight, x, weight * 1, 3, x.requires_grad_(), (weight * 1).detach()]
    ) == [2]


def test_an_input_that_is_written_to_is_held_as_torch_holds_it() -> None:
    class Writing(Broken):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x) * 1
            torch._dynamo.graph_break()
            out: Tensor = self.second(h.add_(1).sin()) + h.sin()
            return out

    torch.manual_seed(0)
    model, inputs = Writing().double(), broken()[1]
    planned = backend("@*=>codes:bits=8", compiler="aot_eager")
    assert_same(train(model, inputs, planned), train(model, inputs), tolerance=0.1)


def test_inputs_that_share_a_storage_are_held_as_they_are() -> None:
    """The codes of one would free nothing while the other is held; a part holds all of it."""
    y = nn.Parameter(torch.ones(8)) * 1
    assert passed_activations([y, y.view(2, 4)]) == []
    assert passed_activations([y[:4]]) == []
    assert passed_activations([y, y * 1]) == [0, 1]
