"""Training runs: strict configuration, exact resumption, atomic files."""

from actprune.gradients import loss_of
from actprune.training.config import TrainConfig
from actprune.training.run import run_training
from actprune.training.step import build, example_batch, training_step
from actprune.training.trainer import Trainer

__all__ = [
    "TrainConfig",
    "Trainer",
    "build",
    "example_batch",
    "loss_of",
    "run_training",
    "training_step",
]
