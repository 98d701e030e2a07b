"""Ranks that train with rules on what autograd saves: DDP and FSDP2 beside one process."""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))

from actprune import apply
from tests.twins import lossless


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()),
        *(nn.LayerNorm(8), nn.Linear(8, 8)),
    )


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    for _ in range(2):  # accumulated
        model(x).square().mean().backward()
    grads = [weight.grad for weight in model.parameters()]
    return [getattr(grad, "full_tensor", lambda grad=grad: grad)() for grad in grads]


def main() -> None:
    """Every way gives the gradients of one process over the whole batch."""
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(1)
    batch = torch.randn(8, 8)
    x = batch.chunk(dist.get_world_size())[dist.get_rank()]
    expected = gradients(net(), batch)
    for small in (0, 100):
        by_unit, whole = apply(net()), apply(net())
        fully_shard(whole, mesh=mesh)
        for module in by_unit:
            if list(module.parameters()):
                fully_shard(module, mesh=mesh)
        fully_shard(by_unit, mesh=mesh)
        models: list[nn.Module] = [DistributedDataParallel(apply(net())), whole, by_unit]
        for model in models:
            with lossless(small):
                torch.testing.assert_close(gradients(model, x), expected)
    dist.destroy_process_group()
    print("the same")  # noqa: T201


if __name__ == "__main__":
    main()
