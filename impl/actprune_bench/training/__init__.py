"""Training runs: strict configuration, exact resumption, atomic files."""

from actprune_bench.training.config import TrainConfig
from actprune_bench.training.run import run_training
from actprune_bench.training.step import build, example_batch, training_step
from actprune_bench.training.trainer import Trainer

__all__ = ["TrainConfig", "Trainer", "build", "example_batch", "run_training", "training_step"]
