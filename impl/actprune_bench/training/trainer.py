"""A training run that can stop after any step and go on as if it had not."""

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from actprune.inspect.gradients import loss_of
from actprune.layers.convert import weigh
from actprune.strategies import STRATEGIES
from actprune.strategies.grammar import read
from actprune_bench.data import DataShape, ImageData
from actprune_bench.training.checkpoint import CHECKPOINT, METRICS, load_checkpoint, save_checkpoint
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.distributed import ALONE, World
from actprune_bench.training.importance import Importance
from actprune_bench.training.randomness import crop_flip, data_order
from actprune_bench.training.step import as_input, build, learning_rate, threads, training_step
from actprune_common.errors import InputError, expected
from actprune_common.files import write_json
from actprune_common.strict_yaml import check

_EVALUATION_BATCH = 500


class Trainer:
    """Trains `config` on `data`; saves into `directory` where one is given.

    `step` counts the optimizer steps made, `history` holds a dict per finished epoch (epoch, step,
    train_loss, accuracy in percent, lr), `samples_ms` each step's milliseconds: forward, backward
    and update, without reading the data. In a world of several ranks each has its share of every
    batch, and `advance`, `evaluate`, `save` and `restore` are collective. Raises InputError where
    the data does not fill one batch, and where a batch does not divide over the ranks.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ImageData,
        directory: Path | None = None,
        world: World = ALONE,
    ) -> None:
        self.config, self.data, self.directory, self.world = config, data, directory, world
        self._share = world.share(config.batch_size)
        self.device = world.device(config.device)
        self.steps_per_epoch = len(data.train) // config.batch_size
        if self.steps_per_epoch == 0:
            most = f"at most {len(data.train)}, the training images of {data.name}"
            raise expected("batch_size", most, config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        shape = DataShape(data.channels, len(data.classes))
        self.model, self.optimizer = build(config, device=str(self.device), shape=shape)
        self.resumed_from: int | None = None
        """Ranks of the run at the checkpoint that it was restored from."""
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.samples_ms: list[float] = []
        self._loss_sum = 0.0  # over the steps of this epoch
        weighted = STRATEGIES["weighted"] in read(config.spec).strategies
        self._importance = Importance(self.model, len(data.train)) if weighted else None
        self.replica: nn.Module = self.model
        """What a step calls: the model, its gradients being the means over the ranks."""
        if world.size > 1:
            # views: what is sent is the gradients themselves, not a second copy of them
            self.replica = DistributedDataParallel(
                self.model, process_group=world.gradients, gradient_as_bucket_view=True
            )
            self._settle()

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.step == self.total_steps

    def advance(self, steps: int) -> list[float]:
        """Make up to `steps` optimizer steps; returns the milliseconds of each.

        Evaluates at the end of an epoch and saves when due, both outside the timing.
        """
        before = len(self.samples_ms)
        with threads(self.config.threads):
            for _ in range(min(steps, self.total_steps - self.step)):
                self._one_step()
                if self.step % self.steps_per_epoch == 0:
                    self._end_epoch()
                elif self.directory and self.step % self.config.checkpoint_every == 0:
                    self.save()
        return self.samples_ms[before:]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 (batch, channels, size, size) and labels int64 (batch) of any step.

        Of the batch, this rank's share.
        """
        chosen = self._chosen(step)[self._share]
        epoch, within = divmod(step, self.steps_per_epoch)
        images = self.data.train.images(chosen)
        if self.config.augment == "crop-flip":
            place = self.config.batch_size, self._share.start
            images = crop_flip(images, self.config.seed, epoch, within, *place)
        return as_input(images.to(self.device)), self.data.train.labels[chosen].to(self.device)

    def _chosen(self, step: int) -> Tensor:
        """Which images are the batch of a step, over all ranks."""
        epoch, within = divmod(step, self.steps_per_epoch)
        size = self.config.batch_size
        order = data_order(self.config.seed, epoch, len(self.data.train))
        return order[within * size : (within + 1) * size]

    @torch.no_grad()
    def evaluate(self) -> float:
        """The accuracy on the test images, in percent."""
        self.model.eval()
        correct = 0
        with threads(self.config.threads):
            ours = torch.arange(len(self.data.test))[self.world.rank :: self.world.size]
            for chosen in torch.split(ours, _EVALUATION_BATCH):
                logits = self.model(as_input(self.data.test.images(chosen).to(self.device)))
                correct += int((logits.argmax(1).cpu() == self.data.test.labels[chosen]).sum())
        self.model.train()
        return 100 * self.world.each(correct).sum().item() / len(self.data.test)

    def save(self) -> None:
        """Write the checkpoint and metrics.json; without a directory, raise InputError.

        Rank 0 writes, and what it writes is every rank's: InputError where they have drifted apart.
        """
        if self.directory is None:
            raise InputError("directory: expected one to save into, got None")
        if self.world.size > 1:
            state = {"step": self.step, "weights": self._digest()}
            self.world.agree(state)
        self.world.on_first(self._write)

    def restore(self) -> bool:
        """Go on from the directory's newest checkpoint; False where there is none yet.

        Raises InputError where it is damaged, or of another config or other data.
        """
        if self.directory is None:
            raise InputError("directory: expected one to restore from, got None")
        state = self.world.on_first(partial(load_checkpoint, self.directory))
        if state is None:
            return False
        path = self.directory / CHECKPOINT
        if check(TrainConfig, state["config"]) != self.config:  # keys that it lacks: the defaults
            raise InputError(f"{path}: is of a run with another config")
        then, now = state["data_digest"], self.data.digest
        if then != now:
            raise InputError(f"{path}: was trained on other data: {then}, now {now}")
        self._load(state)
        return True

    def metrics(self) -> dict[str, Any]:
        """What metrics.json says."""
        return {
            "schema": 1,
            "config": self.config.model_dump(mode="json"),
            "command": self.config.command(),
            "data_digest": self.data.digest,
            "step": self.step,
            "total_steps": self.total_steps,
            "done": self.done,
            "ranks": self.world.size,
            "accuracy": self.history[-1]["accuracy"] if self.history else None,
            "history": self.history,
        }

    def _one_step(self) -> None:
        images, labels = self.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, self.steps_per_epoch)
        start = self._now()
        chosen = self._chosen(self.step)
        if self._importance:
            self._importance.before(self.model, chosen, self._share)
        loss = training_step(self.replica, self.optimizer, images, labels)
        if self._importance:
            self._importance.after(chosen, labels, self.world)
            weigh(self.model, None)
        self.samples_ms.append(1000 * (self._now() - start))
        self._loss_sum += self.world.each(float(loss)).mean().item()
        self.step += 1

    def _now(self) -> float:
        """Seconds, at which all that was begun has ended."""
        torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    def _settle(self) -> None:
        """A backward pass of which nothing stays.

        After its first one DDP lays out its buckets anew, and with them the order in which more
        than two ranks are summed; so every step that counts, a resumed run's first too, has the
        same layout.
        """
        with threads(self.config.threads):
            loss_of(self.replica, *self.batch(0)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)

    def _digest(self) -> str:
        """Of the weights, bit by bit."""
        state = hashlib.sha256()
        for parameter in self.model.parameters():
            state.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    def _write(self) -> None:
        assert self.directory is not None
        save_checkpoint(self.directory, self._state())
        write_json(self.directory / METRICS, self.metrics())

    def _end_epoch(self) -> None:
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.step,
                "train_loss": self._loss_sum / self.steps_per_epoch,
                "accuracy": self.evaluate(),
                "lr": self.optimizer.param_groups[0]["lr"],
            }
        )
        self._loss_sum = 0.0
        if self.directory:
            self.save()

    def _load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]
        self.samples_ms, self._loss_sum = state["samples_ms"], state["loss_sum"]
        if self._importance:
            self._importance.errors = state["importance"]["errors"]
        self.resumed_from = state.get("ranks", 1)  # a checkpoint of before there were several

    def _state(self) -> dict[str, Any]:
        return self.metrics() | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "samples_ms": self.samples_ms,
            "loss_sum": self._loss_sum,
            "importance": {"errors": self._importance.errors} if self._importance else None,
        }
