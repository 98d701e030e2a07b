"""Pruned layers on several ranks: tensor parallelism, and DDP around checkpointed blocks."""

import json
from pathlib import Path
from typing import Any

from tests.ranks import torchrun

SCRIPT = Path(__file__).parent / "layer_ranks.py"


def ranks(part: str, folder: Path) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    torchrun(2, SCRIPT, part, folder / part)
    return [json.loads((folder / f"{part}-{rank}.json").read_text()) for rank in range(2)]


def test_tensor_parallel_layers_have_the_gradients_of_one_process(tmp_path: Path) -> None:
    for found in ranks("tensor_parallel", tmp_path):
        assert len(found) == 6
        for name, (error, held) in found.items():
            assert error < 1e-5, name
            assert held < 0.9, name


def test_within_a_unit_of_fully_shard_too(tmp_path: Path) -> None:
    for found in ranks("both_parallel", tmp_path):
        assert found["both"] < 1e-5


def test_checkpointing_under_ddp_does_what_it_does_with_dense_layers(tmp_path: Path) -> None:
    """The one pair that fails does so in torch: it is documented to."""
    for found in ranks("checkpointed", tmp_path):
        for setting, said in found.items():
            expected = "the same"
            if setting == "reentrant, unused parameters sought":
                expected = "Expected to mark a variable ready only once"
            assert set(said.values()) == {expected}, setting
