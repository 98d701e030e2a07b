"""What tests/test_fsdp.py runs under torchrun: python fsdp_ranks.py train|load FOLDER."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from actprune import InputError, convert, saved_bytes
from actprune.inspect.gradients import loss_of
from actprune.layers.sharding import shard
from actprune.strategies import STRATEGIES
from actprune.strategies.grammar import undo
from actprune.strategies.lean import lean
from actprune_bench.training import TrainConfig
from actprune_bench.training.step import build, optimizer_of, training_step
from actprune_common.strict_yaml import check

Trained = tuple[nn.Module, torch.optim.Optimizer]
EXACT = (
    "dense",
    "bsr:block=1x32,sparsity=0",
    "lean-exact+bsr:block=1x32,sparsity=0",
    "checkpoint+bsr:block=1x32,sparsity=0",
)
PRUNED = (
    "bsr:block=32x32,sparsity=0.9",
    "lean+bsr:block=1x32,sparsity=0.9,select=priority",
)
IMAGES = 24
"""Over all ranks: a multiple of 2 and of 3."""


def config(spec: str) -> TrainConfig:
    """The run of every test here."""
    return check(TrainConfig, {"model": "resmlp_tiny", "spec": spec, "lr": 1e-3})


def batch() -> tuple[Tensor, Tensor]:
    """The same on every rank."""
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (IMAGES,), generator=random)
    return torch.randn(IMAGES, 1, 32, 32, generator=random), labels


def sharded(spec: str) -> Trained:
    """The model and the optimizer of one rank."""
    model = shard(build(config(spec))[0])
    return model, optimizer_of(model, config(spec))


def state(model: nn.Module, optimizer: torch.optim.Optimizer, *, full: bool = False) -> Any:
    """All that a checkpoint needs; full: whole tensors on every rank."""
    options = StateDictOptions(full_state_dict=full)
    parts = get_state_dict(model, optimizer, options=options)
    return {"model": parts[0], "optimizer": parts[1]}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Go on from the checkpoint in `folder`, whatever ranks wrote it."""
    found = state(model, optimizer)
    state_dict_loader.load(found, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"]
    )


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """The names of what is not equal to the bit in two nested states."""
    if isinstance(one, dict):
        if set(one) != set(other):
            return [f"{name}: {sorted(set(one) ^ set(other))}"]
        return [bad for key in one for bad in differing(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if one == other else [name]


def part(tensor: Tensor) -> Tensor:
    """This rank's images of a batch."""
    return tensor.chunk(dist.get_world_size())[dist.get_rank()]


def exact(spec: str) -> dict[str, float]:
    """How far gradients and three steps of all ranks are from those of one process."""
    images, labels = batch()
    one, optimizer = build(config(spec))
    model, own = sharded(spec)
    loss_of(one, images, labels).backward()  # type: ignore[no-untyped-call]
    loss_of(model, part(images), part(labels)).backward()  # type: ignore[no-untyped-call]
    gradients = _furthest(one, model, lambda p: p.grad)
    optimizer.zero_grad()
    own.zero_grad()
    for _ in range(3):
        training_step(one, optimizer, images, labels)
        training_step(model, own, part(images), part(labels))
    return {"gradients": gradients, "weights": _furthest(one, model, lambda p: p)}


def _furthest(one: nn.Module, model: nn.Module, of: Callable[[Any], Any]) -> float:
    """The largest difference of a parameter's elements, over its largest element."""
    worst = 0.0
    for expected, parameter in zip(one.parameters(), model.parameters(), strict=True):
        expected, got = of(expected).detach(), of(parameter).detach().full_tensor()
        worst = max(worst, float((expected - got).abs().max() / (expected.abs().max() + 1e-12)))
    return worst


def learns(spec: str) -> dict[str, Any]:
    """Losses over steps on one batch, over all ranks, and what this rank saves."""
    images, labels = (part(tensor) for tensor in batch())
    model, optimizer = sharded(spec)
    saved = saved_bytes(lambda: loss_of(model, images, labels))
    losses = []
    for _ in range(8):
        loss = training_step(model, optimizer, images, labels)
        dist.all_reduce(loss)
        losses.append(loss.item() / dist.get_world_size())
    return {"losses": losses, "saved": saved}


def refused() -> list[str]:
    """What is said where classes would be exchanged too late."""
    said = []
    for spec, change in (
        ("dense", lean),
        ("dense", STRATEGIES["checkpoint"].apply),
        ("lean+dense", undo),
    ):
        said.append(_error(lambda s=spec, c=change: c(sharded(s)[0])))  # type: ignore[misc]
    model = build(config("dense"))[0]
    shard(model, units=[model.head])
    said.append(_error(lambda: convert(model, "bsr:sparsity=0.9")))
    convert(model, "bsr:sparsity=0.9", exclude="head")  # within the unit, so this works
    loss_of(model, *batch()).backward()  # type: ignore[no-untyped-call]
    model = build(config("lean+dense"))[0]
    shard(model, units=[model.get_submodule("blocks.0.mlp.fc1")])
    said.append(_error(lambda: loss_of(model, *batch())))
    said.append(_error(lambda: shard(nn.Linear(2, 2))))
    return said


def _error(call: Callable[[], Any]) -> str:
    try:
        call()
    except InputError as problem:
        return str(problem)
    return "nothing"


def train(folder: Path) -> dict[str, Any]:
    """Everything that two ranks show; a checkpoint and the whole state stay in `folder`."""
    found = {
        "exact": {spec: exact(spec) for spec in EXACT},
        "learns": {spec: learns(spec) for spec in ("dense", *PRUNED)},
        "refused": refused(),
    }
    model, optimizer = sharded(PRUNED[1])
    for _ in range(3):
        training_step(model, optimizer, *(part(tensor) for tensor in batch()))
    state_dict_saver.save(state(model, optimizer), checkpoint_id=folder / "checkpoint")
    whole = state(model, optimizer, full=True)
    if dist.get_rank() == 0:
        torch.save(whole, folder / "whole.pt")
    return found


def load(folder: Path) -> dict[str, Any]:
    """What differs from the whole state after a reload, and the loss of the next step."""
    model, optimizer = sharded(PRUNED[1])
    restore(model, optimizer, folder / "checkpoint")
    whole = torch.load(folder / "whole.pt", weights_only=True)
    bad = differing(whole, state(model, optimizer, full=True))
    images, labels = (part(tensor) for tensor in batch())
    return {"differing": bad, "loss": training_step(model, optimizer, images, labels).item()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    place = Path(sys.argv[2])
    made = {"train": train, "load": load}[sys.argv[1]](place)
    (place / f"{sys.argv[1]}-{dist.get_rank()}.json").write_text(json.dumps(made))
    dist.destroy_process_group()
    os._exit(0)  # torch: a thread of gloo with a tensor aborts a process whose interpreter ends
