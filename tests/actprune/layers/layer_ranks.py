"""What test_ranks.py runs under torchrun: python layer_ranks.py PART FILE."""

import copy
import json
import os
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from actprune import convert, saved_bytes
from actprune_bench.measure.tolerance import relative_error

EXACT = "bsr:block=1x4,sparsity=0"
PRUNED = "bsr:block=1x4,sparsity=0.75,select=priority"


class Mlp(nn.Module):
    """Between a norm and a residual, as tensor parallelism has them."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.fc1, self.fc2 = nn.Linear(16, 30, bias=bias), nn.Linear(30, 16, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc2(torch.tanh(self.fc1(self.norm(x))))
        return out


PLANS: dict[str, dict[str, Any]] = {
    "tensor": {"fc1": ColwiseParallel(), "fc2": RowwiseParallel()},
    "sequence": {
        "norm": SequenceParallel(),
        "fc1": ColwiseParallel(input_layouts=Shard(1)),
        "fc2": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
    },
    "the other way round": {
        "fc1": RowwiseParallel(input_layouts=Replicate()),
        "fc2": ColwiseParallel(output_layouts=Replicate()),
    },
}
"""Of torch's styles for an Mlp."""


def grads(model: nn.Module) -> dict[str, Tensor]:
    """Whole gradients by name."""
    found = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        found[name] = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return found


def local(model: nn.Module) -> list[Tensor]:
    """This rank's parts of the parameters."""
    return [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative error of a gradient."""
    assert ours.keys() == theirs.keys()
    return max(relative_error(ours[name], theirs[name]) for name in theirs)


def tensor_parallel() -> dict[str, Any]:
    """Errors of gradients against the twin of one process, and bytes against the dense twin's."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    said = {}
    for name, bias in product(PLANS, (True, False)):
        torch.manual_seed(0)
        plain, x = Mlp(bias), torch.randn(2, 6, 16)
        given = distribute_tensor(x, mesh, [Shard(1)]) if name == "sequence" else x
        exact, pruned, dense = (
            parallelize_module(made, mesh, PLANS[name])
            for made in (
                convert(copy.deepcopy(plain), EXACT),
                convert(copy.deepcopy(plain), PRUNED),
                copy.deepcopy(plain),
            )
        )
        for each in (exact, plain):
            out = each(x if each is plain else given)
            out = out.full_tensor() if isinstance(out, DTensor) else out
            out.square().sum().backward()
        held = [saved_bytes(each, given, weights=local(each)) for each in (pruned, dense)]
        said[f"{name}, bias {bias}"] = furthest(grads(exact), grads(plain)), held[0] / held[1]
    return said


def both_parallel() -> dict[str, Any]:
    """Tensor parallelism within a unit of fully_shard, as large models have it."""
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("data", "tensor"))
    torch.manual_seed(0)
    plain, x = Mlp(True), torch.randn(2, 6, 16)
    made = parallelize_module(convert(copy.deepcopy(plain), EXACT), mesh["tensor"], PLANS["tensor"])
    fully_shard(made, mesh=mesh["data"])
    for each in (made, plain):
        each(x).square().sum().backward()
    return {"both": furthest(grads(made), grads(plain))}


def checkpointed() -> dict[str, Any]:
    """What DDP makes of a checkpointed block, dense and pruned: an error, or the gradients."""
    return {
        _setting(reentrant, unused): {
            name: _ddp(spec, reentrant, unused) for name, spec in SPECS.items()
        }
        for reentrant, unused in product((True, False), repeat=2)
    }


def _setting(reentrant: bool, unused: bool) -> str:
    said = "reentrant" if reentrant else "not reentrant"
    return f"{said}, unused parameters {'sought' if unused else 'not sought'}"


SPECS = {"dense": "dense", "exact": EXACT, "pruned": PRUNED}


class Blocks(nn.Module):
    """Two blocks that are computed again."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(16, 16), nn.ModuleList(Mlp(True) for _ in range(2))
        self.again, self.reentrant = True, reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant) if self.again else block(x)
        return x


def _ddp(spec: str, reentrant: bool, unused: bool) -> str:
    torch.manual_seed(0)
    plain, x = convert(Blocks(reentrant), spec), torch.randn(2, 6, 16)
    made = copy.deepcopy(plain)
    model = DistributedDataParallel(made, find_unused_parameters=unused)
    try:
        model(x).square().sum().backward()
    except RuntimeError as problem:
        return str(problem).partition(".")[0]
    plain.again = False
    plain(x).square().sum().backward()
    return "the same" if furthest(grads(made), grads(plain)) < 1e-5 else "others"


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "tensor_parallel": tensor_parallel,
    "both_parallel": both_parallel,
    "checkpointed": checkpointed,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    made = PARTS[sys.argv[1]]()
    Path(f"{sys.argv[2]}-{dist.get_rank()}.json").write_text(json.dumps(made))
    dist.destroy_process_group()
    os._exit(0)  # torch: a thread of gloo with a tensor aborts a process whose interpreter ends
