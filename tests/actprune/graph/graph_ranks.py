"""Ranks that train compiled models by plans: python graph_ranks.py ddp|fsdp, under torchrun."""

import os
import sys
import warnings

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from actprune.graph.compiling import Backend, backend

BLOCKS, WIDTH, ROWS = 3, 320, 64
"""DDP's first bucket has a MiB, which a block or two fill."""
ERROR = 0.02
"""What gradients err by at most, where most is in 8 bits."""


class Block(nn.Module):
    """Each of a width of its own, so that each is a graph of its own."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(WIDTH, inner), nn.LayerNorm(inner)
        self.second = nn.Linear(inner, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.gelu(self.norm(self.first(x))))
        return out


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(WIDTH * (place + 1)) for place in range(BLOCKS)))


def ddp(planned: Backend) -> nn.Module:
    model = DistributedDataParallel(net(), bucket_cap_mb=1)
    run: nn.Module = torch.compile(model, backend=planned)  # type: ignore[assignment]
    return run


def fsdp(planned: Backend) -> nn.Module:
    model, mesh = net(), init_device_mesh("cpu", (dist.get_world_size(),))
    for each in model:
        each.compile(backend=planned)
        fully_shard(each, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def gradients(model: nn.Module, x: Tensor) -> Tensor:
    for _ in range(2):  # accumulated
        model(x).square().mean().backward()
    grads = [weight.grad for weight in model.parameters()]
    whole = [getattr(grad, "full_tensor", lambda grad=grad: grad)() for grad in grads]
    return torch.cat([grad.flatten() for grad in whole])


def main(way: str) -> None:
    """The gradients are those of one process over the whole batch, and every graph has its plan."""
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    torch.manual_seed(1)
    batch = torch.randn(ROWS, WIDTH)
    x = batch.chunk(dist.get_world_size())[dist.get_rank()]
    expected = gradients(net(), batch)
    wrap = {"ddp": ddp, "fsdp": fsdp}[way]
    for keep, tolerance in ((None, 1e-5), ("@*=>codes:bits=8", ERROR)):
        torch._dynamo.reset()
        planned = backend(keep, compiler="aot_eager")
        found = gradients(wrap(planned), x)
        error = float((found - expected).norm() / expected.norm())
        assert error <= tolerance, (error, tolerance)
        count = len(planned.plan.graphs)
        assert count == BLOCKS if way == "fsdp" else count > 1, str(planned.plan)
        for graph in planned.plan.graphs:
            assert graph.held <= (0.5 if keep else 1) * graph.dense, str(planned.plan)
    dist.destroy_process_group()
    print("the same", flush=True)  # noqa: T201
    os._exit(0)  # torch: a thread of gloo with a tensor aborts a process whose interpreter ends


if __name__ == "__main__":
    main(sys.argv[1])
