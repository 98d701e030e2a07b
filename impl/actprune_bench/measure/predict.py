"""The predicted peak of any training step: torch's MemTracker on fake tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

STEPS = 2
"""The second step holds the optimizer's state, so the peak is in it."""


Build = Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
Batch = Callable[[], tuple[Tensor, Tensor]]
Step = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], object]


def predict(build: Build, batch: Batch, step: Step) -> int:
    """Bytes at the peak of `step(model, optimizer, *batch())`, parameters and batch included.

    Everything is made and run on fake tensors: nothing is allocated, on whatever device.
    """
    # Imported here: it pulls torch.distributed, which a build of torch may lack.
    from torch.distributed._tools.mem_tracker import MemTracker

    # a compiled model is predicted as it is without: what a compiler fuses away only lowers it
    with FakeTensorMode(), torch.compiler.set_stance("force_eager"):
        model, optimizer = build()
        images, labels = batch()
        tracker = MemTracker()
        tracker.track_external(model, optimizer, images, labels)
        with tracker:
            for _ in range(STEPS):
                tracker.reset_mod_stats()  # of its modules; the peak stays
                step(model, optimizer, images, labels)
        return _peak(tracker)


def predict_sharded(build: Build, batch: Batch, step: Step) -> int:
    """`predict` for one rank of a model that fully_shard shards: `build` does that.

    Needs a process group; torch's backend "fake" makes one of any size in a single process.
    """
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

    with FakeTensorMode(), torch.compiler.set_stance("force_eager"):  # as above
        model, optimizer = build()
        images, labels = batch()
        # Unseen, for it makes the optimizer's state, and torch once works out how the parameters of
        # the update are sharded: on fake tensors of the whole model, which nothing allocates.
        step(model, optimizer, images, labels)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((images, labels))
        with tracker:
            step(model, optimizer, images, labels)
        return _peak(tracker)


def _peak(tracker: Any) -> int:
    """Bytes on all devices."""
    return sum(int(sizes["Total"]) for sizes in tracker.get_tracker_snapshot("peak").values())
