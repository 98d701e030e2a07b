"""Reads a results.json (schema 1) and sums it up per spec; needs the standard library alone.

``python -m actprune_ci.readers.results FILE`` prints one line per spec; exit code 2 on a bad file.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NoReturn

SCHEMA = 1
OPS = ("compress", "grad_weight", "linear")
Record = Mapping[str, Any]

# What a record must hold at least; it may hold more. Times in ms, ratios to dense of the same run.
KERNEL_FIELDS = {
    **dict.fromkeys(("spec", "op", "dtype", "device", "backend"), "a text"),
    **dict.fromkeys(("rows", "features", "out_features", "nbytes"), "a whole number"),
    "samples_ms": "a list of numbers",
    **dict.fromkeys(("median_ms", "ratio_to_dense", "rel_error"), "a number or null"),
    "nbytes_ratio": "a number",
    "ok": "true or false",
}
TRAINING_FIELDS = {
    **dict.fromkeys(("spec", "model", "data", "data_digest"), "a text"),
    **dict.fromkeys(("seed", "epochs", "steps", "saved_bytes"), "a whole number"),
    "predicted_peak_bytes": "a whole number",
    "measured_peak_bytes": "a whole number or null",
    **dict.fromkeys(("step_ms", "ratio_to_dense", "saved_ratio"), "a number"),
    **dict.fromkeys(("accuracy", "accuracy_delta"), "a number"),
    "grad_cosine": "a number or null",
}


class ResultsError(ValueError):
    """A file that is no results.json of this schema; one line that names the file and the field."""


@dataclass(frozen=True)
class Results:
    """A whole file; every record has at least the fields of the tables above."""

    environment: Record
    kernels: Sequence[Record]
    training: Sequence[Record]


def _fits(value: object, kind: str) -> bool:
    integer = isinstance(value, int) and not isinstance(value, bool)
    number = integer or isinstance(value, float)
    return {
        "a text": isinstance(value, str),
        "a whole number": integer,
        "a whole number or null": integer or value is None,
        "a number": number,
        "a number or null": number or value is None,
        "a list of numbers": isinstance(value, list) and all(_fits(v, "a number") for v in value),
        "true or false": isinstance(value, bool),
        "an object": isinstance(value, dict),
        "a list": isinstance(value, list),
    }[kind]


def _field(record: Record, name: str, kind: str, where: str) -> Any:
    if name not in record:
        raise ResultsError(f"{where}{name}: expected {kind}, but it is missing")
    if not _fits(record[name], kind):
        got = json.dumps(record[name])
        raise ResultsError(
            f"{where}{name}: expected {kind}, got {got[:60]}{'...' * (len(got) > 60)}"
        )
    return record[name]


def _records(document: Record, key: str, kinds: Mapping[str, str], path: Path) -> list[Record]:
    records: list[Record] = _field(document, key, "a list", f"{path}: ")
    for i, record in enumerate(records):
        _field({f"{key}[{i}]": record}, f"{key}[{i}]", "an object", f"{path}: ")
        for name, kind in kinds.items():
            _field(record, name, kind, f"{path}: {key}[{i}].")
    return records


def _check_kernel(kernel: Record, where: str) -> None:
    if kernel["op"] not in OPS:
        raise ResultsError(f"{where}.op: expected one of {', '.join(OPS)}, got {kernel['op']!r}")
    for name in ("median_ms", "ratio_to_dense"):
        if (kernel[name] is not None) != kernel["ok"]:
            expected = "a number where ok is true" if kernel["ok"] else "null where ok is false"
            raise ResultsError(f"{where}.{name}: expected {expected}, got {kernel[name]}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def read(path: str | Path) -> Results:
    """The checked contents of a results.json. Raises ResultsError for anything else."""
    path = Path(path)
    try:
        document = json.loads(path.read_text("utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON
        raise ResultsError(f"{path}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ResultsError(
            f"{path}: expected an object with schema, environment, kernels, training"
        )
    if _field(document, "schema", "a whole number", f"{path}: ") != SCHEMA:
        raise ResultsError(f"{path}: schema: expected {SCHEMA}, got {document['schema']}")
    environment = _field(document, "environment", "an object", f"{path}: ")
    kernels = _records(document, "kernels", KERNEL_FIELDS, path)
    for i, kernel in enumerate(kernels):
        _check_kernel(kernel, f"{path}: kernels[{i}]")
    return Results(environment, kernels, _records(document, "training", TRAINING_FIELDS, path))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def summary(results: Results) -> dict[str, dict[str, float | None]]:
    """Per spec, in order of appearance, its medians; None where it has no record for a figure.

    Of the kernels: one ratio to dense per op, over those that passed their check, and how many did
    not. Of the training runs: the ratios of step time and saved bytes, and the mean accuracy.
    """
    figures: dict[str, dict[str, float | None]] = {}
    for spec in dict.fromkeys(r["spec"] for r in (*results.kernels, *results.training)):
        kernels = [k for k in results.kernels if k["spec"] == spec]
        runs = [t for t in results.training if t["spec"] == spec]
        figures[spec] = {
            **{op: _median(k["ratio_to_dense"] for k in kernels if k["op"] == op) for op in OPS},
            "failed": sum(not k["ok"] for k in kernels),
            "step": _median(t["ratio_to_dense"] for t in runs),
            "saved": _median(t["saved_ratio"] for t in runs),
            "accuracy": fmean(t["accuracy"] for t in runs) if runs else None,
        }
    return figures


def table(results: Results) -> str:
    """The summary as plain text: one line per spec, '-' where there is no figure."""
    rows = [["spec", *OPS, "failed", "step", "saved", "accuracy"]]
    for spec, figures in summary(results).items():
        rows.append([spec, *("-" if f is None else f"{round(f, 3):g}" for f in figures.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def main(arguments: Sequence[str]) -> int:
    """``arguments`` without the program's name; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m actprune_ci.readers.results FILE\n")
        return 2
    try:
        sys.stdout.write(table(read(arguments[0])) + "\n")
    except ResultsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
