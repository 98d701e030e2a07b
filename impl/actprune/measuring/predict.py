"""The predicted peak of any training step: torch's MemTracker on fake tensors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

STEPS = 2
"""The second step holds the optimizer's state, so the peak is in it."""


def predict(
    build: Callable[[], tuple[nn.Module, torch.optim.Optimizer]],
    batch: Callable[[], tuple[Tensor, Tensor]],
    step: Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], object],
) -> int:
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
        snapshot = tracker.get_tracker_snapshot("peak")
    return sum(int(sizes["Total"]) for sizes in snapshot.values())
