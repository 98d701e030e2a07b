"""FSDP2: pruned and lean models shard, train, and reload from their checkpoint on other ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from actprune_bench.training.step import build
from tests.actprune_bench.training import fsdp_ranks
from tests.ranks import torchrun

SCRIPT = Path(fsdp_ranks.__file__)
pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks left what they found, a checkpoint and the whole state."""
    made = tmp_path_factory.mktemp("fsdp")
    torchrun(2, SCRIPT, "train", made)
    return made


@pytest.fixture(params=[0, 1])
def found(folder: Path, request: pytest.FixtureRequest) -> Any:
    """What one of the two ranks found."""
    return json.loads((folder / f"train-{request.param}.json").read_text())


def test_gradients_and_steps_are_those_of_one_process(found: Any) -> None:
    assert set(found["exact"]) == set(fsdp_ranks.EXACT)
    for spec, off in found["exact"].items():
        assert off["gradients"] < 1e-5, spec
        assert off["weights"] < 2e-4, spec  # AdamW divides rounding by gradients near zero


def test_pruned_models_learn_and_save_bytes(found: Any) -> None:
    dense = found["learns"].pop("dense")["saved"]
    for spec, shares in zip(fsdp_ranks.PRUNED, (0.65, 0.08), strict=True):
        losses = found["learns"][spec]["losses"]
        assert losses == sorted(losses, reverse=True), spec
        assert found["learns"][spec]["saved"] < shares * dense, spec


def test_classes_are_exchanged_before_sharding_or_not_at_all(found: Any) -> None:
    late = (
        "{} is a unit of fully_shard already; convert a model, make it lean or undo that before it "
        "is sharded"
    )
    assert found["refused"] == [
        *[late.format("model: it")] * 3,
        late.format("model: head"),
        "lean: expected whole weights, got a sharded one: fully_shard the block that holds the "
        "chain, not its layers",
        "units: expected modules to shard, or a model with an nn.ModuleList",
    ]


# torch: says so wherever a checkpoint is read in a process without ranks, which is what is wanted
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
def test_reload_on_one(folder: Path) -> None:
    model, optimizer = build(fsdp_ranks.config(fsdp_ranks.PRUNED[1]))
    fsdp_ranks.restore(model, optimizer, folder / "checkpoint")
    whole = torch.load(folder / "whole.pt", weights_only=True)
    assert fsdp_ranks.differing(whole, fsdp_ranks.state(model, optimizer)) == []
    fresh = build(fsdp_ranks.config(fsdp_ranks.PRUNED[1]))
    assert len(fsdp_ranks.differing(whole["model"], fresh[0].state_dict())) > 30


def test_reload_on_three(folder: Path) -> None:
    torchrun(3, SCRIPT, "load", folder)
    for rank in range(3):
        found = json.loads((folder / f"load-{rank}.json").read_text())
        assert found["differing"] == []
        assert 0 < found["loss"] < 3
