"""What a sweep found: results.json and a page for each model and data, and cells.json for all."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actprune_bench.compare.run import PAGE, RESULTS
from actprune_bench.measure.runs import against_dense
from actprune_bench.report.page import write_page
from actprune_bench.sweep.cells import DONE, Cell, CellRecord, Outcome, attempts, record, standing
from actprune_common.files import write_json
from actprune_common.machine import SAME
from actprune_common.results import SCHEMA, NotDone, Results, write

CELLS = "cells.json"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to."""

    results: dict[Path, Results]
    """By their page, in whose folder they are."""
    outcomes: dict[str, int]
    """How many cells ended in each way."""
    failed: list[tuple[Cell, Outcome]]
    """The cells that are not done."""
    alone: list[Cell]
    """Done, but without a dense run on their machine there are no ratios, so no result."""


def gather(cells: Sequence[Cell], out: Path, command: str) -> SweepResult:
    """Write what `cells` have found into `out`. Raises InputError where a record is damaged."""
    tried = {cell.id: attempts(cell.folder) for cell in cells}
    ends = [(cell, standing(tried[cell.id]) or Outcome("not run")) for cell in cells]
    failed = [(cell, end) for cell, end in ends if end.outcome != DONE]
    groups, alone = _groups([cell for cell, end in ends if end.outcome == DONE])
    written = _write(groups, failed, out, command)
    write_json(out / CELLS, {"schema": 1, "cells": [_line(c, e, tried[c.id]) for c, e in ends]})
    return SweepResult(written, dict(Counter(end.outcome for _, end in ends)), failed, alone)


def _groups(done: Sequence[Cell]) -> tuple[list[Results], list[Cell]]:
    """The records that may stand side by side, with their ratios; and cells that have no dense."""
    groups: defaultdict[tuple[str, ...], list[tuple[Cell, CellRecord]]] = defaultdict(list)
    for cell in done:
        found = record(cell.folder)
        where = tuple(getattr(found.environment, key) for key in SAME)
        groups[(found.model, found.data, found.data_digest, *where)].append((cell, found))
    made, alone = [], []
    for pairs in groups.values():
        dense = {found.seed: found for _, found in pairs if found.spec == "dense"}
        alone += [cell for cell, found in pairs if found.seed not in dense]
        kept = [found for _, found in pairs if found.seed in dense]
        if kept:
            records = [against_dense(found, dense[found.seed]) for found in kept]
            about = kept[0].environment
            made.append(Results(schema=SCHEMA, environment=about, kernels=[], training=records))
    return made, alone


def _write(
    groups: Sequence[Results], failed: Sequence[tuple[Cell, Outcome]], out: Path, command: str
) -> dict[Path, Results]:
    """A folder for each group, which is `out` itself for a single one; the results by page."""
    written: dict[Path, Results] = {}
    if len(groups) != 1:  # those of a smaller grid
        for name in (RESULTS, PAGE):
            (out / name).unlink(missing_ok=True)
    for group in groups:
        model, data = group.training[0].model, group.training[0].data
        name = _name(f"{model}-{data}", [page.parent for page in written])
        folder = out if len(groups) == 1 else out / name
        about = group.environment.model_copy(update={"command": command, "interleaved": False})
        lines = [
            NotDone(**_what(cell), outcome=end.outcome, why=end.why)
            for cell, end in failed
            if (cell.config.model, cell.config.data) == (model, data)
        ]
        made = group.model_copy(update={"environment": about, "not_done": lines})
        folder.mkdir(exist_ok=True)
        write(folder / RESULTS, made)
        write_page(made, folder / PAGE)
        written[folder / PAGE] = made
    return written


def _name(what: str, taken: Sequence[Path]) -> str:
    """Of a group's folder; a number tells apart what model and data do not."""
    text = re.sub(r"[^\w.=-]+", "-", what)[:100]
    names = re.compile(re.escape(text) + r"(\.\d+)?")
    same = sum(names.fullmatch(folder.name) is not None for folder in taken)
    return f"{text}.{same + 1}" if same else text


def _what(cell: Cell) -> dict[str, Any]:
    return {key: getattr(cell.config, key) for key in ("spec", "model", "data", "seed")}


def _line(cell: Cell, end: Outcome, tried: Sequence[Outcome]) -> dict[str, Any]:
    attempts = [asdict(each) for each in tried]
    return {"id": cell.id, **_what(cell), "outcome": end.outcome, "attempts": attempts}
