"""The peak memory of a training step: predicted on fake tensors, and measured in a fresh process.

Both are bytes of two optimizer steps after the process is warm: parameters, optimizer state,
gradients, activations and temporaries. The prediction sees every tensor that torch allocates, but
not what an operator or a kernel of ours allocates and frees inside itself.
"""

import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from actprune.graph import plan_of
from actprune_bench.data import DataShape
from actprune_bench.measure.predict import STEPS, predict
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import build, example_batch, training_step
from actprune_common import machine
from actprune_common.errors import InputError, last_line

_LARGE = 65536
_RESULT = re.compile(r"^peak_bytes=(\d+)$", re.MULTILINE)


def predicted_peak(config: TrainConfig, shape: DataShape | None = None) -> int:
    """Bytes at the peak of training `config`, by MemTracker on fake tensors: nothing is allocated.

    Deterministic, at any scale, without the device. A compiled model is predicted as it is without:
    where a plan holds less, `planned_peak` knows. shape: channels and classes; by default those of
    config.data.
    """
    batch = partial(example_batch, config, shape=shape)
    return predict(partial(build, config, shape=shape), batch, training_step)


def planned_peak(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Sequence[Tensor]
) -> int | None:
    """Bytes at the peak of a step as the plan of a compiled model predicts them.

    None where it has no plan. What the loss needs beside the model's outputs is not in it.
    """
    try:
        graphs = plan_of(model).graphs
    except InputError:
        return None
    state = [value for values in optimizer.state.values() for value in values.values()]
    parameters = list(model.parameters())
    alive: int = sum(tensor.nbytes for tensor in (*parameters, *model.buffers(), *batch, *state))
    held = sum(graph.held for graph in graphs)
    gradients = sum(p.nbytes for p in parameters if p.requires_grad)
    peaks = (graph.peak + held - graph.held for graph in graphs)
    return alive + max(gradients, *peaks)


def measured_peak(config: TrainConfig) -> int | None:
    """Bytes that training `config` adds to a fresh process at its peak; None where unknown.

    The resident high-water mark of a warm process, less what it held before the model was built.
    Needs Linux's /proc. Raises InputError where the process fails.
    """
    if not can_measure():
        return None
    environment = os.environ | returned_at_once()
    command = [sys.executable, "-m", "actprune_bench.measure.peak", config.model_dump_json()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = _RESULT.search(done.stdout)
    if done.returncode or found is None:
        last = last_line(done.stderr, "no output")
        raise InputError(f"measured peak: the process ended with {done.returncode}: {last}")
    return int(found.group(1))


def can_measure() -> bool:
    """Whether the system says what is resident at most."""
    return Path("/proc/self/clear_refs").exists()


def returned_at_once() -> dict[str, str]:
    """The environment of a process in which what is resident is what is alive.

    glibc then gives freed tensors back to the system at once, whatever else it was told to do.
    """
    return {
        "GLIBC_TUNABLES": "",
        "MALLOC_TOP_PAD_": "0",
        "MALLOC_MMAP_THRESHOLD_": str(_LARGE),
        "MALLOC_TRIM_THRESHOLD_": str(_LARGE),
        "MALLOC_ARENA_MAX": "1",
    }


def measure_here(config: TrainConfig) -> int:
    """measured_peak of this process, fresh and in returned_at_once's environment.

    Warms up, marks, trains, reads the high-water mark.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model, optimizer = build(config)
    batch = example_batch(config)
    batch[0].normal_()
    for _ in range(STEPS):  # what compiles, compiles now
        training_step(model, optimizer, *batch)
    gc.collect()
    state = [value for values in optimizer.state.values() for value in values.values()]
    held: int = sum(tensor.nbytes for tensor in (*model.parameters(), *batch, *state))
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory_status("VmRSS") - held
    for _ in range(STEPS):
        training_step(model, optimizer, *batch)
    return memory_status("VmHWM") - before


def memory_status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    found = machine.field(Path("/proc/self/status"), field)
    if found is None:
        raise InputError(f"/proc/self/status: expected a line {field}, found none")
    return int(found.removesuffix(" kB")) * 1024


if __name__ == "__main__":
    print(f"peak_bytes={measure_here(TrainConfig.model_validate_json(sys.argv[1]))}")  # noqa: T201
