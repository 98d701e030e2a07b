"""Images weighed by their last error: what is kept of a run, and what it is for."""

from pathlib import Path

import pytest
import torch
from torch import nn

from actprune import InputError, PrunedLinear, convert, weigh
from actprune.strategies.grammar import apply, read
from actprune.strategies.lean import lean
from actprune_bench.data import load_data
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.importance import Importance
from actprune_bench.training.trainer import Trainer
from actprune_common.strict_yaml import check

SPEC = "weighted+bsr:block=1x32,sparsity=0.9,select=priority"
SMALL = {"spec": SPEC, "epochs": 2, "batch_size": 16, "warmup_epochs": 0.0, "threads": 1}


def trainer(folder: Path | None = None) -> Trainer:
    return Trainer(check(TrainConfig, SMALL), load_data("embedded", 32, 48, 32), folder)


def test_errors_are_those_of_the_last_visit() -> None:
    run = trainer()
    assert run._importance is not None
    chosen = run._chosen(0)
    images, labels = run.batch(0)
    with torch.no_grad():
        wrong = run.model(images).softmax(1) - nn.functional.one_hot(labels, 10)
    run.advance(1)
    torch.testing.assert_close(run._importance.errors[chosen], wrong.norm(dim=1))
    others = torch.ones(48, dtype=torch.bool)
    others[chosen] = False
    assert bool((run._importance.errors[others] == 1).all())
    assert all(
        m.sample_importance is None for m in run.model.modules() if isinstance(m, PrunedLinear)
    )


def test_a_resumed_run_ends_bit_equal(tmp_path: Path) -> None:
    whole = trainer()
    whole.advance(6)
    part = trainer(tmp_path)
    part.advance(4)
    part.save()
    resumed = trainer(tmp_path)
    assert resumed.restore()
    resumed.advance(2)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    plain = Trainer(
        check(TrainConfig, SMALL | {"spec": SPEC[9:]}), load_data("embedded", 32, 48, 32)
    )
    plain.advance(6)
    assert not torch.equal(plain.model.head.weight, whole.model.head.weight)  # weights do matter


def test_less_noise_where_most_images_are_fitted() -> None:
    """Rows of images with a gradient of next to nothing are not worth a place."""
    torch.manual_seed(0)
    layer = nn.Linear(32, 8, bias=False)
    x = torch.randn(64, 10, 32)
    grad = torch.randn(64, 10, 8)
    grad[8:] *= 1e-3
    size = grad.flatten(1).norm(dim=1)
    exact = torch.einsum("bro,brf->of", grad, x)
    errors = []
    for weights in (None, size + 0.2 * size.mean()):
        convert(layer, "bsr:block=1x32,sparsity=0.8,select=priority")
        weigh(layer, weights)
        total = 0.0
        for _ in range(20):
            layer.zero_grad()
            layer(x).backward(grad)
            assert layer.weight.grad is not None
            total += float((layer.weight.grad - exact).square().sum() / exact.square().sum())
        errors.append(total)
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("gelu", [2, 4, None])
def test_lean_chains_take_weights_too(gelu: int | None) -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
    lean(convert(model, "bsr:block=1x32,sparsity=0.9,select=topk"), gelu=gelu)
    weights = torch.ones(10)
    weights[3] = 1e6
    weigh(model, weights)
    x, grad = torch.randn(10, 5, 32), torch.zeros(10, 5, 32)
    grad[3] = 1
    model(x).backward(grad)
    assert isinstance(model[2], nn.Linear)
    assert model[2].weight.grad is not None
    with torch.no_grad():
        hidden = nn.functional.gelu(model[0](x[3]))
    torch.testing.assert_close(model[2].weight.grad, grad[3].t() @ hidden)  # its 5 rows were kept


def test_bad_weights() -> None:
    layer = convert(nn.Linear(4, 2), "csr:sparsity=0.5")
    with pytest.raises(InputError, match=r"expected floating-point numbers of shape \(batch,\), g"):
        weigh(layer, torch.ones(2, 2))
    with pytest.raises(InputError, match=r"got torch.int64 of shape \(2,\)"):
        weigh(layer, torch.ones(2, dtype=torch.int64))
    weigh(layer, torch.ones(3))
    with pytest.raises(InputError, match="weights: expected one for each sample, got 3 for 4 rows"):
        layer(torch.randn(4, 4))
    for value in (0.0, -1.0, torch.nan, torch.inf):
        with pytest.raises(
            InputError, match=f"weights: expected positive, finite numbers, got {value}"
        ):
            weigh(layer, torch.tensor([1.0, value]))
    message = "weighted: expected formats with select=priority, got 'weighted"
    for spec in (
        "csr:sparsity=0.5",
        "quant:bits=4",  # stochastic, but it selects nothing
        "bsr:block=1x2,sparsity=0.5,values=int4",  # likewise: its selection is the largest
        "0=>csr:sparsity=0.5,select=priority;*=>csr:sparsity=0.5",
    ):
        with pytest.raises(InputError, match=message):
            apply(nn.Sequential(layer), f"weighted+{spec}")
    with pytest.raises(InputError, match="importance: expected a forward pass before `after`"):
        Importance(layer, 3).after(torch.tensor([0]), torch.tensor([0]))


def test_nan_logits_leave_weights_finite() -> None:
    importance = Importance(model := nn.Identity(), 4)
    model(torch.full((2, 3), torch.nan))
    importance.after(torch.tensor([0, 2]), torch.tensor([0, 1]))
    assert importance.errors.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_its_text() -> None:
    assert read("bf16 + weighted + csr:select=priority").spec == (
        "weighted+bf16+csr:sparsity=0.9,select=priority"
    )
