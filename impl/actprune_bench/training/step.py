"""One optimizer step, and what it needs: plain functions that also run on fake tensors."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from actprune.inspect.gradients import loss_of
from actprune.strategies.grammar import apply
from actprune_bench.data import DataShape, data_shape
from actprune_bench.models import MODELS, ResMLP
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.randomness import Purpose, generator


def build(
    config: TrainConfig, *, device: str = "cpu", shape: DataShape | None = None
) -> tuple[ResMLP, torch.optim.AdamW]:
    """The model of `config` before its first step, pruned as its spec says, and its optimizer.

    shape: channels and classes; by default those of config.data, found without reading images.
    The weights depend on config.seed alone; torch's global generator is left as it was. A dense
    run is not converted: its layers are plain nn.Linear.
    """
    channels, num_classes = shape or data_shape(config.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.seed, Purpose.WEIGHTS).initial_seed())
        model = MODELS[config.model](num_classes=num_classes, in_channels=channels)
    if config.spec != "dense":
        apply(model, config.spec, config.include, config.exclude)
    if device != "cpu":  # fake parameters cannot be moved, not even to where they are
        model.to(device)
    model.train()
    return model, optimizer_of(model, config)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    """Forward, loss, backward, update; returns the loss, detached. Reads no value back.

    images: float (batch, channels, size, size); labels: int64 (batch).
    """
    loss = loss_of(model, images, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def example_batch(
    config: TrainConfig, *, device: str = "cpu", shape: DataShape | None = None
) -> tuple[Tensor, Tensor]:
    """Zeros in the shape of one batch: images and labels as `training_step` takes them."""
    channels = (shape or data_shape(config.data)).channels
    size = config.image_size
    images = torch.zeros(config.batch_size, channels, size, size, device=device)
    return images, torch.zeros(config.batch_size, dtype=torch.int64, device=device)


def as_input(images: Tensor) -> Tensor:
    """uint8 images to what the models take: float32 from -1 to 1."""
    return images.to(torch.float32).div_(127.5).sub_(1)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to 0 at the last step."""
    total, warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / (math.ceil(warmup) + 1)
    progress = (step - warmup) / max(1.0, total - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch's threads on the CPU while it lasts; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def optimizer_of(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimizer of `config` for the parameters that `model` has now."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused: one pass over the state, and no step count is read back, so fake tensors work too
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
