"""Strategies: their text, what they do to a model, and how it is undone."""

import copy

import pytest
import torch

from actprune import InputError, PrunedLinear, pruned, saved_bytes
from actprune.lean import LeanBlock
from actprune.models import Block, ResMLP
from actprune.models.resmlp import Variant
from actprune.strategies import STRATEGIES, CheckpointedBlock, apply, read, undo
from actprune.training.config import TrainConfig
from actprune.training.records import grad_cosine

SMALL = Variant(image_size=16, patch_size=4, dim=8, depth=2, layer_scale=0.3)
SPECS = ["checkpoint+dense", "lean+csr:sparsity=0.5", "lean-exact+bsr:block=1x8,sparsity=0.5"]


def model() -> ResMLP:
    torch.manual_seed(0)
    return SMALL(num_classes=3, in_channels=1)


@pytest.mark.parametrize("spec", [*SPECS, "dense", "coo:sparsity=0.9"])
def test_a_spec_is_read_back(spec: str) -> None:
    assert read(spec).spec == spec
    assert read(read(spec).spec) == read(spec)
    assert TrainConfig(spec=spec).spec == spec


def test_an_unknown_strategy_names_the_known_ones() -> None:
    known = ", ".join(STRATEGIES)
    with pytest.raises(InputError, match=f"expected a strategy of {known} before '\\+', got 'x'"):
        read("x+dense")
    with pytest.raises(InputError, match="expected a format of"):
        read("lean+nothing")
    with pytest.raises(InputError, match="checkpoint: expected a model with ResMLP blocks"):
        apply(torch.nn.Sequential(torch.nn.Linear(2, 2)), "checkpoint+dense")


@pytest.mark.parametrize("spec", SPECS)
def test_apply_and_undo(spec: str) -> None:
    plain = model()
    made = apply(copy.deepcopy(plain), spec)
    kind = CheckpointedBlock if spec.startswith("checkpoint") else LeanBlock
    assert all(type(block) is kind for block in made.blocks)
    assert list(made.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(made(images), plain(images))
    undo(made)
    assert all(type(block) is Block for block in made.blocks)
    assert not pruned(made)
    assert saved_bytes(made, images) == saved_bytes(plain, images)


def test_checkpointing_keeps_each_block_s_input_and_every_gradient() -> None:
    plain = model()
    made = apply(copy.deepcopy(plain), "checkpoint+dense")
    images = torch.randn(4, 1, 16, 16)
    one = 4 * 16 * 8 * 4  # bytes of a block's input
    # the images, both blocks' inputs, the last affine's, the classifier's
    assert saved_bytes(made, images) == 4 * 16 * 16 * 4 + 2 * one + one + 4 * 8 * 4
    for each in (plain, made):
        each(images).square().sum().backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_lean_saves_what_its_stores_and_two_bits_are() -> None:
    images = torch.randn(8, 1, 16, 16)
    dense = saved_bytes(model(), images)
    pruned_alone = saved_bytes(apply(model(), "bsr:block=1x8,sparsity=0.9"), images)
    lean = saved_bytes(apply(model(), "lean+bsr:block=1x8,sparsity=0.9"), images)
    exact = saved_bytes(apply(model(), "lean-exact+bsr:block=1x8,sparsity=0.9"), images)
    assert lean < exact < pruned_alone < dense
    assert exact - lean == 2 * 8 * 16 * 32 * (4 - 0.25)  # blocks x images x patches x inner


def test_the_gradients_direction_is_against_the_plain_model() -> None:
    images, labels = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    assert grad_cosine(model(), images, labels) == 1
    assert grad_cosine(apply(model(), "checkpoint+dense"), images, labels) == 1
    exact = apply(model(), "lean-exact+dense")
    assert grad_cosine(exact, images, labels) == pytest.approx(1, abs=1e-6)
    two_bits = grad_cosine(apply(model(), "lean+dense"), images, labels)
    assert 0.9 < two_bits < 0.9999
    both = apply(model(), "lean+csr:sparsity=0.8")
    assert grad_cosine(both, images, labels) < two_bits
    assert all(isinstance(layer, PrunedLinear) for layer in pruned(both).values())


def test_a_lean_step_trains() -> None:
    made = apply(model(), "lean+bsr:block=1x8,sparsity=0.5,select=priority")
    images, labels = torch.randn(32, 1, 16, 16), torch.arange(32) % 3
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(made(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
