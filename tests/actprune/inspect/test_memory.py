"""saved_bytes, the predicted and the measured peak: each alone, and all three together."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actprune import convert, saved_bytes
from actprune.inspect.gradients import loss_of
from actprune_bench.measure.peak import measured_peak, predicted_peak
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import build, example_batch


def test_a_linear_keeps_its_input_and_no_weight() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(16, 8)
    assert saved_bytes(layer, x) == x.nbytes
    assert saved_bytes(layer, x.requires_grad_()) == x.nbytes
    assert saved_bytes(lambda: layer(x)) == x.nbytes
    assert saved_bytes(layer.forward, x) == x.nbytes


def test_each_storage_counts_once() -> None:
    x = torch.randn(16, 8, requires_grad=True)
    assert saved_bytes(lambda: (x * x, x[:4].square(), x.t().square())) == x.nbytes


def test_only_what_is_still_held_counts() -> None:
    x = torch.randn(16, 8, requires_grad=True)

    def forward() -> Tensor:
        torch.mul(x, torch.ones_like(x))  # its graph is dropped, and the ones that it kept
        return torch.mul(x, torch.full_like(x, 2))

    assert saved_bytes(forward) == x.nbytes  # the twos: a product keeps what its gradient needs
    assert saved_bytes(lambda: None) == 0


def test_plain_tensors_can_be_named_as_weights() -> None:
    x, w = torch.randn(16, 8, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    assert saved_bytes(lambda: x @ w) == x.nbytes + w.nbytes
    assert saved_bytes(lambda: x @ w, weights=[w]) == x.nbytes


def test_a_frozen_parameter_is_a_weight_too() -> None:
    layer = nn.Linear(8, 4).requires_grad_(False)
    x = torch.randn(16, 8, requires_grad=True)
    assert saved_bytes(lambda: F.linear(x, layer.weight)) == 0


def test_checkpointing_holds_the_input_only() -> None:
    block = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    x = torch.randn(16, 8, requires_grad=True)
    assert saved_bytes(block, x) > 4 * x.nbytes
    assert saved_bytes(lambda: checkpoint(block, x, use_reentrant=False)) <= x.nbytes


def test_ninety_percent_saves_nine_tenths_of_a_linear() -> None:
    layer, x = nn.Linear(384, 16), torch.randn(6272, 384)
    dense = saved_bytes(layer, x)
    assert saved_bytes(convert(layer, "bsr:block=1x32,sparsity=0.9"), x) <= 0.105 * dense


SPECS = [
    pytest.param("dense", marks=pytest.mark.slow),
    "bsr:block=1x32,sparsity=0.9",
    pytest.param("bsr:block=32x32,sparsity=0.9,select=priority", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_three_figures_agree(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", str(2**28))  # nor does what malloc was told matter
    config = TrainConfig(spec=spec, batch_size=128, threads=2)
    predicted, measured = predicted_peak(config), measured_peak(config)
    model, _ = build(config)
    images, labels = example_batch(config)
    saved = saved_bytes(lambda: loss_of(model, images, labels))
    if measured is None:
        pytest.skip("no /proc/self/clear_refs: the peak of a process cannot be measured here")
    assert measured == pytest.approx(predicted, rel=0.05)
    # AdamW: weights, two moments, gradients. At the peak besides: two of the MLP's hidden tensors.
    weights = sum(p.nbytes for p in model.parameters())
    hidden = config.batch_size * 64 * 4 * 96 * 4
    assert saved + 3 * weights < predicted < saved + 4 * weights + 2 * hidden


@pytest.mark.parametrize(
    ("model", "batch_size"),
    [("resmlp_s12", 128), pytest.param("resmlp_s24", 128, marks=pytest.mark.slow)],
)
def test_prediction_is_deterministic_and_at_scale(model: str, batch_size: int) -> None:
    config = TrainConfig(model=model, batch_size=batch_size, spec="bsr:block=1x32,sparsity=0.9")
    predicted = predicted_peak(config)
    assert predicted == predicted_peak(config)
    dense = predicted_peak(config.model_copy(update={"spec": "dense"}))
    # Linear inputs are 6 of 14 units of what a block keeps; a tenth of them stays.
    assert 0.55 < predicted / dense < 0.70
