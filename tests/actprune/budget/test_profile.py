"""profile: within its budget, as measured; better than one spec for all; wrong input by name."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import actprune
from actprune import FORMATS, InputError, convert, pruned, saved_bytes
from actprune.budget.profile import CANDIDATES, LayerFormats, Profile, profile
from actprune.strategies.grammar import apply, read
from actprune_bench.data import load_data
from actprune_bench.models import ResMLP
from actprune_bench.training import TrainConfig, build
from actprune_bench.training.step import as_input

UNIFORM = "bsr:block=1x32,sparsity=0.9,select=priority"
KINDS = ("*.attn", "*.fc1", "*.fc2", "head")
Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small products; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


def allocate(
    model: nn.Module, batch: Sequence[Tensor], budget: int, **options: Any
) -> LayerFormats:
    return profile(model, batch, **options).allocate(budget)


def tiny() -> ResMLP:
    model, _ = build(TrainConfig())
    return model


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Embedded images."""
    train = load_data("embedded", 32, 32, 10).train
    return as_input(train.images(torch.arange(32))), train.labels[:32]


@pytest.fixture(scope="module")
def measured(batch: Batch) -> Profile:
    """Of a fresh resmlp_tiny, all candidates."""
    torch.set_num_threads(1)
    return profile(tiny(), batch)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_budget_is_kept_in_saved_bytes(measured: Profile, batch: Batch, share: float) -> None:
    images, _ = batch
    least = measured.allocate(int(measured.nbytes.min(1).sum()))
    budget = int(share * measured.uniform("dense").nbytes)
    made = measured.allocate(budget)
    assert 0.8 * budget < made.nbytes <= budget
    for strategy in ("", "lean+"):
        saved = [saved_bytes(apply(tiny(), strategy + a.spec), images) for a in (made, least)]
        assert saved[0] - saved[1] == made.nbytes - least.nbytes


def test_the_bytes_are_all_that_linears_save() -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.Linear(96, 32), nn.Linear(32, 10))
    x, labels = torch.randn(256, 64), torch.arange(256) % 10
    budget = 50_000
    made = allocate(model, (x, labels), budget)
    assert convert(model, made) is model
    assert saved_bytes(model, x) == made.nbytes <= budget


def test_a_larger_budget_never_has_more_error(measured: Profile) -> None:
    dense = measured.uniform("dense").nbytes
    made = [measured.allocate(dense * share // 1000) for share in range(12, 1001, 13)]
    errors = [each.error for each in made]
    assert errors == sorted(errors, reverse=True)
    assert measured.allocate(dense).error == 0
    assert len({tuple(each.items()) for each in made}) > 20


@pytest.mark.parametrize("spec", [UNIFORM, f"{UNIFORM},values=int4", f"{UNIFORM},values=int8"])
def test_better_than_one_spec_for_all_of_equal_bytes(measured: Profile, spec: str) -> None:
    uniform = measured.uniform(spec)
    made = measured.allocate(uniform.nbytes)
    assert made.nbytes <= uniform.nbytes
    assert made.error < 0.5 * uniform.error


def test_the_profiled_errors_are_those_of_the_gradients(batch: Batch) -> None:
    csr = "csr:sparsity=0.8"  # no random selection, so nothing is left to chance
    error = profile(tiny(), batch, candidates=["dense", csr]).errors[:, 1]
    plain, sparse = tiny(), convert(tiny(), csr)
    for model in (plain, sparse):
        F.cross_entropy(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    for (name, layer), found in zip(pruned(sparse).items(), error, strict=True):
        dense, ours = plain.get_submodule(name).weight.grad, layer.weight.grad
        assert isinstance(dense, Tensor)
        assert isinstance(ours, Tensor)
        expected = float((ours - dense).square().sum() / dense.square().sum())
        assert found == pytest.approx(expected, rel=1e-3)


def test_kinds_share_a_format_and_are_written_as_a_plan(batch: Batch) -> None:
    made = allocate(tiny(), batch, 2**20, groups=KINDS)
    assert tuple(made) == KINDS
    assert read(made.spec).spec == made.spec
    assert [f"{glob}=>{spec}" for glob, spec in made.items()] == made.spec.split(";")
    model = convert(tiny(), made)
    assert {model.get_submodule(f"blocks.{i}.attn").spec for i in range(3)} == {made["*.attn"]}
    only = allocate(tiny(), batch, 2**18, groups="*.mlp.*")
    assert len(pruned(apply(tiny(), only.spec))) == 6
    assert tuple(
        profile(tiny(), batch, candidates=["csr"], groups=["*.fc?", "*", "head"]).groups
    ) == (
        "*.fc?",
        "*",
    )


def test_the_model_is_left_as_it_was(batch: Batch) -> None:
    model = convert(tiny(), f"{UNIFORM},values=int2").eval()
    before = copy.deepcopy(model.state_dict())
    again = allocate(model, batch, 2**20)
    assert again == allocate(tiny(), batch, 2**20), "what was pruned is profiled as if it were not"
    assert not model.training
    assert len(pruned(model)) == 10
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Odd(nn.Module):
    """A layer used twice, a frozen one, an unused one, a name with brackets, an input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {"twice[a]": nn.Linear(16, 16), "frozen": nn.Linear(16, 16), "unused": nn.Linear(4, 4)}
        )
        self.layers["frozen"].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers["twice[a]"](self.layers["twice[a]"](x).relu_())
        return F.gelu(self.layers["frozen"](input=out))


def squared(model: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = model(x).float().square().sum()
    return loss


def test_odd_layers() -> None:
    x = torch.randn(64, 16)
    made = allocate(Odd(), (x,), 2 * x.nbytes, loss=squared)
    assert (dict(made), made.nbytes, made.error) == (
        {"layers.twice[[]a]": "dense"},
        2 * x.nbytes,
        0,
    )
    less = allocate(Odd(), (x,), x.nbytes, loss=squared)
    assert list(pruned(convert(Odd(), less))) == ["layers.twice[a]"]
    alone = allocate(nn.Linear(16, 4), (x,), x.nbytes // 2, loss=squared)
    assert list(alone) == ["*"]
    assert alone.spec == alone["*"]


def test_autocast_stores_its_dtype() -> None:
    def cast(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return squared(model, x)

    x = torch.randn(64, 32)
    found = profile(nn.Linear(32, 8), (x,), loss=cast, candidates=["dense", "csr:sparsity=0.5"])
    assert found.nbytes[0, 0] == x.nbytes // 2


def test_what_has_no_gradient_costs_no_error() -> None:
    x = torch.randn(8, 4)
    found = profile(nn.Linear(4, 4), (x,), loss=lambda model, x: model(x).sum() * 0)
    assert found.errors.max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"budget": 10},
            r"^budget: expected at least \d+ bytes, the least that the candidates can keep "
            r"of this batch, got 10$",
        ),
        (
            {"budget": "4MiB"},
            "^budget: expected a whole number of bytes, got '4MiB'; actprune.parse_bytes",
        ),
        ({"budget": float("inf")}, "^budget: expected a whole number of bytes, got inf"),
        ({"candidates": []}, "^candidates: expected at least one format, got none$"),
        (
            {"candidates": ["ell"]},
            f"^spec: expected a format of {', '.join(FORMATS)}, got 'ell'$",
        ),
        (
            {"groups": ["head", "tail"]},
            "^groups: 'tail' matches no layer with a gradient, such as blocks.0.attn, blocks.0.mlp",
        ),
        ({"groups": []}, "^groups: expected at least one glob, got none$"),
        (
            {"loss": lambda model, images, labels: model(images).sum() * float("nan")},
            "^model: the weight gradient of 'blocks.0.attn' is not finite on this batch$",
        ),
        (
            {"loss": lambda model, images, labels: model.norm.alpha.sum()},
            "^model: expected an nn.Linear whose weight takes part in the loss, found none$",
        ),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, object], message: str, batch: Batch) -> None:
    options: dict[str, Any] = {"budget": 2**30, "candidates": ["csr"]} | arguments
    with pytest.raises(InputError, match=message):
        allocate(tiny(), batch, **options)


def test_a_frozen_model_and_an_empty_batch_are_named(batch: Batch) -> None:
    with pytest.raises(InputError, match=r"^model: expected an nn\.Linear whose weight takes part"):
        allocate(tiny().requires_grad_(False), batch, 2**30)
    images, labels = batch
    with pytest.raises(InputError, match=r"^batch: expected at least one sample, got none$"):
        allocate(tiny(), (images[:0], labels[:0]), 2**30)


def test_the_least_budget_is_the_one_that_is_said(measured: Profile) -> None:
    least = int(measured.nbytes.min(1).sum())
    assert measured.allocate(least).nbytes == least
    with pytest.raises(InputError, match=f"expected at least {least} bytes"):
        measured.allocate(least - 1)
    with pytest.raises(
        InputError, match=r"spec: expected one of dense, bsr.*, got csr:sparsity=0.9"
    ):
        measured.uniform("csr")


def test_the_candidates_are_canonical_and_all_unbiased() -> None:
    specs: Sequence[str] = [actprune.parse(spec).spec for spec in CANDIDATES]
    assert len(set(specs)) == len(specs) == 16
    assert all("priority" in spec or "sparsity=0.0" in spec or spec == "dense" for spec in specs)
