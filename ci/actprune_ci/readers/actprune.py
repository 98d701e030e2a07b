"""actprune's results.json (docs/results-format.md): kernels and training runs; ms become s."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import measured, of_environment, unit_of
from actprune_common.results import KernelRecord, Record, TrainingRecord, read

KERNEL_FIGURES = ("ratio_to_dense", "nbytes", "nbytes_ratio", "rel_error")
TRAINING_FIGURES = (
    *("ratio_to_dense", "saved_bytes", "saved_ratio", "predicted_peak_bytes"),
    *("measured_peak_bytes", "accuracy", "accuracy_delta", "grad_cosine"),
)
UNITS = {"accuracy": "%", "accuracy_delta": "points"}
"""Of the fields whose names do not tell it."""
Params = tuple[tuple[str, str], ...]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of a results.json, checked as actprune_common.results does."""
    found = read(path)
    metrics = {name: Metric(**declared.model_dump()) for name, declared in found.metrics.items()}
    made = [
        *((record, _kernel(record)) for record in found.kernels),
        *((record, _training(record)) for record in found.training),
    ]
    measurements = [
        m for record, known in made for m in (*known, *_own(record, known[0].key, metrics))
    ]
    return (of_environment(found.environment.model_dump(), measurements, path, metrics),)


def _kernel(record: KernelRecord) -> list[Measurement]:
    params = (
        ("spec", record.spec),
        ("layer", record.layer or f"{record.rows}x{record.features}x{record.out_features}"),
        ("dtype", record.dtype),
        ("device", record.device),
    )
    name, failed = f"kernels.{record.op}", record.error or "its check failed"
    # a record that passed its check has a median, but need not have its samples
    times = [ms / 1000 for ms in record.samples_ms or [record.median_ms or 0]] if record.ok else []
    return [
        measured(Key(name, params), times, "" if times else failed),
        *_figures(record, name, params, KERNEL_FIGURES, "" if record.ok else failed),
    ]


def _training(record: TrainingRecord) -> list[Measurement]:
    params = (
        ("spec", record.spec),
        ("model", record.model),
        ("data", record.data.partition(":")[0]),  # where it lies says nothing about the run
        ("epochs", str(record.epochs)),
        ("seed", str(record.seed)),
    )
    times = [ms / 1000 for ms in record.step_samples_ms or [record.step_ms]]
    return [
        measured(Key("training", params), times),
        *_figures(record, "training", params, TRAINING_FIGURES),
    ]


def _figures(
    record: Record, name: str, params: Params, fields: Iterable[str], error: str = ""
) -> list[Measurement]:
    """The figures that stand in the record; a null one failed with `error`, or was skipped."""
    made = []
    for field in fields:
        metric, unit = field.replace("_peak_bytes", "_peak"), UNITS.get(field, unit_of(field))
        key, value = Key(name, params, metric, unit), getattr(record, field)
        if value is not None:
            made.append(measured(key, [value]))
        elif error:
            made.append(Measurement(key, (), "failed", error))
        else:
            made.append(Measurement(key, (), "skipped", "null: not measured here, or not finite"))
    return made


def _own(record: Record, timed: Key, metrics: Mapping[str, Metric]) -> list[Measurement]:
    """The figures that the file declares, of those that stand in the record."""
    return [
        measured(replace(timed, metric=name, unit=metric.unit or unit_of(name)), [value])
        for name, metric in metrics.items()
        if (value := (record.model_extra or {}).get(name)) is not None
    ]
