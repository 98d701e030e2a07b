"""Gradient fidelity per layer: exact where nothing is lost, and bias told from noise."""

import math

import pytest
import torch
from torch import Tensor, nn

from actprune import InputError, convert
from actprune.inspect.fidelity import LayerFidelity, fidelity, mean_cosine
from actprune.strategies.grammar import apply
from actprune.strategies.lean import lean
from actprune_bench.training import TrainConfig, build

BATCH = (
    torch.randn(32, 1, 32, 32, generator=torch.Generator().manual_seed(1)),
    torch.arange(32) % 10,
)


def of(spec: str, draws: int = 8) -> dict[str, LayerFidelity]:
    """Of a fresh resmlp_tiny, by layer."""
    model, _ = build(TrainConfig(spec=spec))
    return {found.layer: found for found in fidelity(model, BATCH, draws=draws)}


def test_nothing_is_lost_at_sparsity_zero() -> None:
    assert of("dense") == {}
    found = of("csr:sparsity=0")
    assert list(found)[:3] == ["blocks.0.attn", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]
    assert len(found) == 10
    for layer in found.values():
        assert layer.cosine == pytest.approx(1, abs=1e-6)
        assert layer.norm_ratio == pytest.approx(1, abs=1e-5)
        assert max(layer.rel_error, layer.bias) < 1e-5


def test_the_cosine_falls_with_sparsity() -> None:
    means = [mean_cosine(of(f"csr:sparsity={s}").values()) for s in (0.0, 0.5, 0.9, 0.99)]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.8


def test_by_hand_on_one_layer() -> None:
    layer = nn.Linear(2, 1, bias=False)
    x, weight = torch.tensor([[4.0, 3.0], [0.0, 0.0]]), torch.tensor([[1.0], [1.0]])

    def weighted(model: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
        loss: Tensor = (model(x) * weight).sum()
        return loss

    convert(layer, "csr:sparsity=0.5,scope=row")  # keeps the 4 of each row, so ĝ = (4, 0)
    (found,) = fidelity(layer, (x, weight), loss=weighted)
    assert found.layer == ""
    assert found.cosine == pytest.approx(4 / 5)
    assert found.norm_ratio == pytest.approx(4 / 5)
    assert found.rel_error == found.bias == pytest.approx(3 / 5)
    assert (found.draws, found.noise) == (8, found.rel_error / math.sqrt(8))


def test_the_largest_are_biased_and_a_fair_sample_is_noise_alone() -> None:
    largest = of("bsr:block=1x32,sparsity=0.9")
    sample = of("bsr:block=1x32,sparsity=0.9,select=priority", 16)
    coded = of("bsr:block=1x32,sparsity=0,values=int2", 16)
    for layer in largest.values():
        assert layer.bias == layer.rel_error > 0.1
        assert layer.norm_ratio < 1
    for layer in [*sample.values(), *coded.values()]:
        assert layer.bias == pytest.approx(layer.noise, rel=0.35), layer
        assert layer.draws == 16


def test_of_a_plan_each_layer_has_its_own_and_the_plain_ones_none() -> None:
    found = of("*.attn=>dense;*.fc1=>csr:sparsity=0;*=>csr:sparsity=0.9")
    assert [name for name in found if name.endswith("attn")] == []
    assert found["blocks.1.mlp.fc1"].rel_error < 1e-5
    assert found["blocks.1.mlp.fc2"].rel_error > 0.1


def test_lean_blocks_count_where_their_linears_keep_everything() -> None:
    found = of("lean+dense")
    assert list(found) == [f"blocks.{i}.mlp.{fc}" for i in range(3) for fc in ("fc1", "fc2")]
    assert all(
        0.001 < layer.rel_error == layer.bias for name, layer in found.items() if "fc1" in name
    )
    exact = of("lean-exact+dense")
    assert all(layer.rel_error < 1e-4 for layer in exact.values())
    block = lean(build(TrainConfig())[0]).blocks[0]
    batch = torch.randn(4, 64, 96), torch.zeros(())
    alone = fidelity(block, batch, loss=lambda made, x, _: made(x).square().sum())
    assert [layer.layer for layer in alone] == ["mlp.fc1", "mlp.fc2"]


def test_lean_chains_of_other_models_count_too() -> None:
    model = nn.Sequential(
        nn.Linear(16, 8), nn.Sequential(nn.Linear(8, 32), nn.GELU()), nn.Linear(32, 4)
    )
    batch = torch.randn(8, 16), torch.arange(8) % 4
    assert fidelity(model, batch) == []
    found = fidelity(lean(model), batch)
    assert [layer.layer for layer in found] == ["1.0", "2"]
    assert found[0].rel_error > 0.001
    found = fidelity(apply(model, "bf16+lean-4bit+dense"), batch)
    assert [layer.layer for layer in found] == ["1.0", "2"]


def test_the_model_is_left_as_it_was() -> None:
    model, _ = build(TrainConfig())
    apply(model, "lean+coo:sparsity=0.9,select=priority")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    state = torch.get_rng_state()
    first = fidelity(model, BATCH, draws=2)
    assert fidelity(model, BATCH, draws=2) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dropout_is_the_same_in_both() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 4))
    convert(model, "csr:sparsity=0")
    batch = torch.randn(8, 16), torch.arange(8) % 4
    (found,) = fidelity(model, batch)
    assert found.rel_error < 1e-6


def test_zero_gradients_are_right_and_frozen_layers_have_none() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    convert(model, "csr:sparsity=0.5")
    batch = torch.zeros(3, 4), torch.zeros(())
    (found,) = fidelity(model, batch, loss=lambda made, x, _: made(x).mul(0).sum())
    assert found == LayerFidelity("1", 1.0, 1.0, 0.0, 0.0, 8)


def test_draws_are_counted() -> None:
    with pytest.raises(InputError, match="draws: expected 1 or more, got 0"):
        of("csr", 0)
