"""allocate: the whole step within its budget, on any model and batch; the least that there is."""

import copy
from collections import OrderedDict, UserDict
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import actprune
from actprune import InputError
from actprune.budget import peak
from actprune.budget.allocate import _globs, allocate
from actprune.budget.peak import step_peak
from actprune.inspect.gradients import loss_of
from actprune_bench.measure.peak import predicted_peak
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import build, example_batch

MIB = 2**20


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small products; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


class Block(nn.Module):
    """What transformers are made of, but for attention."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.fc1, self.fc2 = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class Model(nn.Module):
    """Takes its batch by name."""

    def __init__(self, blocks: int = 4, features: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(features) for _ in range(blocks))
        self.head = nn.Linear(features, 8)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x) if scale is None else self.head(x) * scale
        return out


def tight(model: nn.Module, batch: Any) -> int:
    """A budget for which dense is too much, and not by far."""
    return int(0.8 * step_peak(model, batch))


X = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))


def test_the_step_is_within_the_budget_as_it_runs() -> None:
    model = Model()
    dense, spread = step_peak(model, X), {}
    least = step_peak(model, X, "recompute+@*=>codes:bits=4")
    assert least < 0.7 * dense
    for share in (0.05, 0.3, 0.6, 0.9):
        budget = int(least + share * (dense - least))
        made = allocate(model, X, budget)
        assert made.peak <= budget
        assert made.peak == step_peak(model, X, made.spec), "what is predicted is what it takes"
        assert made.dense_peak == dense
        spread[share] = made
    errors = [made.error for made in spread.values()]
    assert errors[0] == max(errors)
    assert len({made.spec for made in spread.values()}) == 4
    assert errors[-1] < 0.5 * errors[0]
    assert made.error == actprune.survey(model, X, made.spec).error


def test_dense_where_it_fits_and_the_least_where_it_does_not() -> None:
    model = Model(blocks=1)
    made = allocate(model, X, "1GiB")
    assert (made.spec, made.error, made.peak) == ("dense", 0.0, made.dense_peak)
    with pytest.raises(InputError, match=r"^budget: expected at least \d+ bytes") as raised:
        allocate(model, X, 1000)
    least = int(str(raised.value).split()[4])
    assert allocate(model, X, least).peak == least
    with pytest.raises(InputError, match=f"the least that .* can take, got {least - 1}$"):
        allocate(model, X, least - 1)


@pytest.mark.parametrize(
    "batch",
    [(X,), {"x": X}, UserDict({"x": X, "scale": torch.ones(2048, 8)})],
    ids=["tuple", "dict", "two"],
)
def test_batches_of_any_kind(batch: Any) -> None:
    model = Model()
    if "scale" in batch:
        assert step_peak(model, batch) >= step_peak(model, X) + batch["scale"].nbytes
    made = allocate(model, batch, tight(model, batch))
    assert made.spec != "dense"
    actprune.apply(model, made.spec)
    out = model(*batch) if isinstance(batch, tuple) else model(**batch)
    out.sum().backward()


def test_the_optimizer_is_part_of_the_step() -> None:
    model = nn.Linear(1024, 1024)
    x, weights = torch.randn(2, 1024), 4 * (1024 * 1024 + 1024)
    plain = step_peak(model, x)
    assert 2 * weights < plain < 2.1 * weights
    sgd = step_peak(model, x, optimizer=partial(torch.optim.SGD, lr=0.1))
    assert sgd < 2.1 * weights
    adam = step_peak(model, x, optimizer=torch.optim.AdamW)
    assert adam > 4 * weights
    assert adam == step_peak(model, x, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match=r"^budget: expected at least"):
        allocate(model, x, int(2.1 * weights), optimizer=torch.optim.AdamW)
    assert allocate(model, x, int(2.1 * weights)).spec == "dense"


@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "RAdam", "RMSprop", "Adafactor"])
def test_optimizers_run_without_memory(name: str) -> None:
    model, x, optimizer = Model(blocks=1), X[:8], partial(getattr(torch.optim, name), lr=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "_peak", seen := Seen(peak._peak))
        predicted = step_peak(model, x, optimizer=optimizer)
    assert seen.parameters == ["FakeTensor"]
    assert predicted == peak._peak(copy.deepcopy(model), x, None, optimizer)


class Seen:
    """What kind of parameters a function was called with."""

    def __init__(self, called: Any) -> None:
        self.called, self.parameters = called, list[str]()

    def __call__(self, model: nn.Module, *args: Any) -> Any:
        self.parameters.append(type(next(model.parameters())).__name__)
        return self.called(model, *args)


def test_autocast_is_the_loss_of_whoever_asks() -> None:
    def cast(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = model(x)
            return out.float().square().mean()

    model = Model()
    dense = step_peak(model, X, loss=cast)
    assert dense < 0.75 * step_peak(model, X)
    made = allocate(model, X, int(0.75 * dense), loss=cast)
    assert (made.peak, made.dense_peak) == (step_peak(model, X, made.spec, loss=cast), dense)
    assert 0 < made.error < 0.02


class Reads(nn.Module):
    """A model whose forward pass depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc1(x)
        return F.gelu(out) if out.sum().item() > -1e9 else self.fc2(out)


def test_a_model_that_reads_values_is_run_on_real_tensors() -> None:
    dense = step_peak(Reads(), X)
    assert allocate(Reads(), X, dense).peak == dense


def test_the_peak_counts_what_is_alive() -> None:
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Tanh())
    weights, x = 64 * 64 * 4, 2048 * 64 * 4
    made = step_peak(model, X)
    assert weights + 3 * x <= made <= 2 * weights + 6 * x
    assert model[0].weight.grad is None
    assert step_peak(model, X) == made


@pytest.mark.parametrize(
    "spec",
    ["dense", "recompute+@*=>codes:bits=4", "bf16+checkpoint+dense", "lean+csr:sparsity=0.9"],
)
def test_the_peak_is_the_one_that_torch_tracks(spec: str) -> None:
    plain = TrainConfig(batch_size=8)
    model, _ = build(plain)
    adamw = partial(torch.optim.AdamW, fused=True)
    found = step_peak(model, example_batch(plain), spec, loss=loss_of, optimizer=adamw)
    assert found == predicted_peak(TrainConfig(batch_size=8, spec=spec))


def test_pruning_candidates_are_for_products() -> None:
    model = Model()
    names = ["dense", "bsr:block=1x32,sparsity=0.9,select=priority"]
    budget = tight(model, X)
    made = allocate(model, X, budget, candidates=names)
    assert made.peak <= budget
    assert "bsr" in made.spec
    actprune.apply(model, made.spec)(X).sum().backward()


def test_groups_are_told_apart() -> None:
    model = Model()
    budget = int(0.75 * step_peak(model, X))
    made = allocate(model, X, budget, groups=["blocks.0", "*.fc1"])
    assert made.peak <= budget
    rules = actprune.read(made.spec).saved
    assert {rule.glob for rule in rules} <= {"blocks.0", "*.fc1", "*"}


def test_by_default_the_first_half_of_the_blocks_is_told_apart() -> None:
    named = nn.Sequential(OrderedDict((f"part{i}", Block(64)) for i in range(6)))
    model = nn.ModuleDict({"stem": named, "few": nn.ModuleList(Block(64) for _ in range(3))})
    assert _globs(model, None) == ["*"], "parts with names of their own are no blocks of a list"
    model["b[0]"] = nn.ModuleList(Block(8) for _ in range(4))
    assert _globs(model, None) == ["b[[]0].[0-1]", "*"]
    model["more"] = nn.ModuleList(Block(8) for _ in range(30))
    assert _globs(model, None) == ["more.[0-9]", "*"]
    assert _globs(model, ["few.*", "*", "stem.*"]) == ["few.*", "*"]


def test_a_sample_serves_where_the_batch_is_large() -> None:
    model = Model()
    budget = tight(model, X)
    made = allocate(model, X, budget, sample=X[:256])
    assert made.peak <= budget
    assert made.error > 0


def test_the_model_is_left_as_it_was() -> None:
    model = actprune.apply(Model(), "@*=>codes:bits=8").eval()
    before = copy.deepcopy(model.state_dict())
    budget = tight(model, X)
    assert step_peak(model, X) == step_peak(Model(), X), "what was applied is undone"
    allocate(model, X, budget)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert actprune.survey(model, X).held > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "much"}, "^budget: expected a size such as 4GiB or 800MB, got 'much'$"),
        ({"budget": 1.5}, "^budget: expected whole bytes, or a text such as 24GiB, got 1.5$"),
        ({"budget": True}, "^budget: expected whole bytes"),
        ({"candidates": []}, "^candidates: expected at least one format, got none$"),
        ({"candidates": ["ell"]}, "^spec: expected a format of "),
        ({"groups": "tail"}, "^groups: 'tail' matches no module of the model$"),
        ({"loss": lambda model, x: model(x).detach().sum()}, "does not require grad"),
    ],
)
def test_wrong_input_is_named(change: dict[str, Any], message: str) -> None:
    error = RuntimeError if "loss" in change else InputError
    with pytest.raises(error, match=message):
        allocate(Model(blocks=1), X, **({"budget": MIB} | change))
