"""What test_parallel.py runs under torchrun: parallel_ranks.py BACKEND DEVICE FILE.

Each rank writes what it found to FILE and its number. Ranks beyond the GPUs share them, which gloo
can and nccl cannot.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from actprune import saved_bytes
from actprune.layers.sharding import shard
from actprune.strategies.grammar import apply
from actprune_bench.models import MODELS

SPECS = (
    "dense",
    "bsr:block=1x32,sparsity=0.9,scope=row",
    "lean+bsr:block=1x32,sparsity=0.9,scope=row",
    "checkpoint+bsr:block=1x32,sparsity=0.9,scope=row",
)
"""By row, so that a rank selects among its own rows what one process would."""
IMAGES = 24
Found = dict[str, dict[str, float]]


def made(spec: str, device: torch.device) -> nn.Module:
    """The same weights on every rank, pruned."""
    torch.manual_seed(0)
    model = MODELS["resmlp_tiny"]().to(device)
    return apply(model, spec) if spec != "dense" else model


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), labels)


def check(spec: str, wrap: Callable[[nn.Module], nn.Module], device: torch.device) -> Found:
    """How far the gradients of all ranks are from those of one, and what this rank saves."""
    random = torch.Generator().manual_seed(1)
    images = torch.randn(IMAGES, 3, 32, 32, generator=random).to(device)
    labels = torch.randint(0, 10, (IMAGES,), generator=random).to(device)
    own = [part.chunk(dist.get_world_size())[dist.get_rank()] for part in (images, labels)]
    one, ours = made(spec, device), made(spec, device)
    model = wrap(ours)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    saved = saved_bytes(lambda: loss_of(model, *own))
    loss_of(one, images, labels).backward()  # type: ignore[no-untyped-call]
    loss_of(model, *own).backward()  # type: ignore[no-untyped-call]
    expected, got = gradients(one), gradients(ours)
    losses = []
    for _ in range(4):
        optimizer.step()
        optimizer.zero_grad()
        loss = loss_of(model, *own)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
    return {
        spec: {
            "off": float((got - expected).norm() / expected.norm()),
            "saved": saved,
            "fall": losses[0] - losses[-1],
        }
    }


def gradients(model: nn.Module) -> Tensor:
    """All of them, whole, as one vector."""
    parts = []
    for parameter in model.parameters():
        assert parameter.grad is not None
        whole = getattr(parameter.grad, "full_tensor", lambda p=parameter: p.grad)()
        parts.append(whole.detach().flatten())
    return torch.cat(parts)


def main() -> None:
    """Every spec under DDP, and under FSDP2 where the backend gathers what the device holds."""
    backend, kind, path = sys.argv[1:]
    rank = int(os.environ["RANK"])
    device = torch.device(kind)
    if kind == "cuda":
        device = torch.device(kind, rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    wraps: dict[str, Callable[[nn.Module], nn.Module]] = {"ddp": DistributedDataParallel}
    if (backend, kind) in (("nccl", "cuda"), ("gloo", "cpu")):
        wraps["fsdp"] = shard
    found: dict[str, Found] = {}
    for name, wrap in wraps.items():
        found[name] = {}
        for spec in SPECS:
            found[name] |= check(spec, wrap, device)
    Path(f"{path}{rank}").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch: a thread of gloo with a tensor aborts a process whose interpreter ends


if __name__ == "__main__":
    main()
