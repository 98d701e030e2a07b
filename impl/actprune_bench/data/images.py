"""Labelled images: what a data source gives, held in memory or decoded when asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_common.errors import InputError, expected

Array = npt.NDArray[Any]


class Split(Protocol):
    """The training or the test images."""

    @property
    def labels(self) -> Tensor:
        """int64 (n): the index of each image's class."""

    def __len__(self) -> int:
        """The number of images."""

    def images(self, indices: Tensor) -> Tensor:
        """uint8 (len(indices), channels, image_size, image_size) for int64 `indices`."""

    def take(self, indices: Tensor) -> "Split":
        """The split of those images alone, in that order."""

    def fingerprint(self) -> bytes:
        """What the digest is made of."""


@dataclass(frozen=True)
class ImageData:
    """A data set: two splits, its classes, and the digest that stands in every result.

    digest: "sha256:" and 64 hex digits over the class names and both splits: shapes, images and
    labels where they are in memory; sorted relative paths, file sizes and labels for a folder tree.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    channels: int
    train: Split
    test: Split


@dataclass(frozen=True)
class MemorySplit:
    """Images held as they come; padded with zeros to image_size when asked for."""

    pixels: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor) -> Tensor:
        """uint8 (len(indices), channels, image_size, image_size)."""
        return pad_centrally(self.pixels[indices], self.image_size)

    def take(self, indices: Tensor) -> "MemorySplit":
        return MemorySplit(self.pixels[indices], self.labels[indices], self.image_size)

    def fingerprint(self) -> bytes:
        shape = repr(tuple(self.pixels.shape)).encode()
        return shape + self.pixels.numpy().tobytes() + self.labels.numpy().astype("<i8").tobytes()


def pad_centrally(images: Tensor, size: int) -> Tensor:
    """Zeros around (..., height, width) up to (..., size, size); what is larger stays as it is."""
    high, wide = (max(0, size - length) for length in images.shape[-2:])
    return F.pad(images, (wide // 2, wide - wide // 2, high // 2, high - high // 2))


def digest(classes: Sequence[str], train: Split, test: Split) -> str:
    """ "sha256:..." over the class names and both splits, as ImageData says."""
    state = hashlib.sha256("\n".join(classes).encode())
    for split in (train, test):
        state.update(split.fingerprint())
    return f"sha256:{state.hexdigest()}"


def limited(split: Split, limit: int | None) -> Split:
    """The first `limit` images, as many of each class as can be, in their order; all if fewer."""
    if limit is None or limit >= len(split):
        return split
    if limit < 1:
        raise InputError(f"limit: expected 1 or more images, got {limit}")
    labels = split.labels
    rank = torch.empty_like(labels)
    for label in set(labels.tolist()):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    order = torch.argsort(rank, stable=True)  # the first of every class, then the second, ...
    return split.take(order[:limit].sort().values)


def in_memory(
    name: str, classes: tuple[str, ...], splits: Sequence[tuple[Array, Array]], image_size: int
) -> ImageData:
    """A data set from the pixels, uint8 (n, channels, height, width), and labels (n) of its splits.

    Raises InputError where images are larger than the model takes.
    """
    made = []
    for images, labels in splits:
        if (least := max(images.shape[-2:])) > image_size:
            raise expected(
                "image_size", f"at least {least}, the size of {name}'s images", image_size
            )
        pixels, numbers = torch.tensor(images), torch.from_numpy(labels.astype(np.int64))
        made.append(MemorySplit(pixels, numbers, image_size))
    train, test = made
    channels = train.pixels.shape[1]
    return ImageData(name, digest(classes, train, test), classes, channels, train, test)
