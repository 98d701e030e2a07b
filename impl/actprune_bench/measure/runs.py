"""The records of training runs: what each says of itself, and beside the dense run."""

import statistics
from dataclasses import asdict
from typing import TypeVar

from actprune.inspect.fidelity import fidelity, mean_cosine
from actprune.inspect.gradients import loss_of
from actprune.inspect.memory import saved_bytes
from actprune.strategies.grammar import read
from actprune_bench.measure.peak import planned_peak
from actprune_bench.training.trainer import Trainer
from actprune_common.results import RunRecord, TrainingRecord

RECORD = "record.json"
DRAWS = 8
"""Of each random selection, for the gradients' bias."""
Run = TypeVar("Run", bound=RunRecord)


def run_record(trainer: Trainer, predicted_peak: int, measured_peak: int | None) -> RunRecord:
    """What one finished run says of itself, in the memory that its training had.

    The predicted peak of a model with a graph plan is the plan's own: the other knows no graph.
    What its gradients lose comes with `with_fidelity`, ratios to dense with `against_dense`.
    """
    config = trainer.config
    planned = planned_peak(trainer.model, trainer.optimizer, trainer.batch(0))
    hidden = read(config.spec).hides
    accuracies = [epoch["accuracy"] for epoch in trainer.history]
    return RunRecord(
        **config.model_dump(include={"spec", "model", "data", "seed", "epochs", "batch_size"}),
        data_digest=trainer.data.digest,
        steps=trainer.total_steps,
        step_ms=statistics.median(trainer.samples_ms),
        step_samples_ms=trainer.samples_ms,
        saved_bytes=saved_bytes(loss_of, trainer.model, *trainer.batch(0), hidden=hidden),
        predicted_peak_bytes=predicted_peak if planned is None else planned,
        measured_peak_bytes=measured_peak,
        accuracy=accuracies[-1],
        accuracy_per_epoch=accuracies,
        grad_cosine=None,
        command=config.command(),
    )


def with_fidelity(record: Run, trainer: Trainer) -> Run:
    """The record with its gradients' fidelity, which takes the memory of dense gradients."""
    layers = fidelity(trainer.model, trainer.batch(0), draws=DRAWS)
    lost = {"grad_cosine": mean_cosine(layers), "layers": list(map(asdict, layers))}
    return record.model_validate(record.model_dump() | lost)


def against_dense(run: RunRecord, dense: RunRecord) -> TrainingRecord:
    """The record of `run` with its ratios to the dense run of the same seed."""
    return TrainingRecord(
        **run.model_dump(include=set(RunRecord.model_fields)),
        ratio_to_dense=run.step_ms / dense.step_ms,
        saved_ratio=run.saved_bytes / dense.saved_bytes,
        accuracy_delta=run.accuracy - dense.accuracy,
    )
