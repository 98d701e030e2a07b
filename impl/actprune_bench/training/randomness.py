"""Random numbers that depend on where a run is, not on how it got there.

Each use has a generator of its own, seeded by (seed, purpose, epoch, step); nothing carries over
from step to step, so a resumed run draws what the uninterrupted one would.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What the numbers are for; the values are part of what a seed means."""

    WEIGHTS = 0
    ORDER = 1
    AUGMENT = 2


def generator(seed: int, purpose: Purpose, *place: int) -> torch.Generator:
    """The generator of one purpose at one place (epoch, step)."""
    entropy = np.random.SeedSequence((seed, int(purpose), *place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0]))


@lru_cache(maxsize=1)
def data_order(seed: int, epoch: int, size: int) -> Tensor:
    """int64 (size): the order in which an epoch sees the training images."""
    return torch.randperm(size, generator=generator(seed, Purpose.ORDER, epoch))


def crop_flip(
    images: Tensor, seed: int, epoch: int, step: int, batch: int | None = None, start: int = 0
) -> Tensor:
    """Random crops after padding an eighth of the size, and random mirrors.

    images: uint8 (images, channels, size, size), those of a `batch` from `start` on, all of it by
    default: an image's changes depend on its place in the batch alone. The result is of that shape.
    """
    random = generator(seed, Purpose.AUGMENT, epoch, step)
    count, channels, _, size = images.shape
    whole, part = batch or count, slice(start, start + count)
    pad = size // 8
    top, left = torch.randint(0, 2 * pad + 1, (2, whole, 1), generator=random)[:, part]
    mirrored = (torch.rand(whole, 1, generator=random) < 0.5)[part]
    along = torch.arange(size)
    rows = top + along  # images, size
    columns = left + torch.where(mirrored, along.flip(0), along)
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    image, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
