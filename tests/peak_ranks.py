"""What test_planning.py runs under torchrun: peak_ranks.py ddp|fsdp MODEL SPEC COUNT."""

import gc
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from actprune.layers.sharding import shard
from actprune_bench.data import DataShape
from actprune_bench.measure.peak import memory_status
from actprune_bench.training import TrainConfig
from actprune_bench.training.step import build, example_batch, optimizer_of, training_step
from actprune_common.strict_yaml import check

SHAPE = DataShape(3, 10)
STEPS = 3
"""DDP makes its buckets anew after the first step, and the system gives them memory in the second:
in the third they are there from the start."""


def train(parallel: str, name: str, spec: str, count: int) -> None:
    """Some steps of this rank on `count` images."""
    config = check(TrainConfig, {"model": name, "batch_size": count, "spec": spec})
    model: nn.Module = build(config, shape=SHAPE)[0]
    model = shard(model) if parallel == "fsdp" else DistributedDataParallel(model)
    optimizer = optimizer_of(model, config)
    images, labels = example_batch(config, shape=SHAPE)
    images.normal_()
    for _ in range(STEPS):
        training_step(model, optimizer, images, labels)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    parallel, name, spec, count = sys.argv[1:]
    train(parallel, name, spec, 1)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory_status("VmRSS")
    train(parallel, name, spec, int(count))
    print(f"peak_bytes={memory_status('VmHWM') - before}", flush=True)  # noqa: T201
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch: a thread of gloo with a tensor aborts a process whose interpreter ends
