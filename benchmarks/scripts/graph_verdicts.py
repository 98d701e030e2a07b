"""What the rows of `benchmarks.scripts.graphs` say beside what plans are to reach."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.scripts.graph_figures import PLANNED, SWEPT

Row = Mapping[str, Any]
Rows = Mapping[str, Mapping[str, Row]]
"""By model and setting."""
State = Literal["reached", "missed", "not measured"]
LEAST, RECOMMENDED = "0.03", "compiled:0.12"
"""The settings that verdicts are about, as `--budget` takes them."""
AT_EQUAL_BYTES = ("vit_tiny", "resmlp_12", "hf_llama")
"""The models on which a plan is compared to torch's activation_memory_budget."""
TIMES = 8
"""What the batch is multiplied by where peaks are judged."""
_STEP, _ERROR, _PEAK, _HELD, _COMPILE, _PREDICTED = 1.12, 0.10, 0.7, 0.12, 1.3, 0.05
_FASTER, _FEWER = 0.9, 0.5


@dataclass(frozen=True)
class Verdict:
    """Whether something was reached: a row that failed reaches nothing."""

    what: str
    value: float | None
    """None: nothing was measured of it."""
    limit: float
    state: State
    models: int
    where: str = ""
    """The model and the setting of the worst."""

    def __str__(self) -> str:
        """One line; digits that tell the value from the limit."""
        found = "-" if self.value is None else figure(self.value, self.limit)
        worst = f", worst on {self.where}" if self.where else ""
        return (
            f"{self.what:62s} {found} <= {self.limit:g}: {self.state} ({self.models} models{worst})"
        )


def figure(value: float, limit: float) -> str:
    """Three digits, or more where fewer would put a value above its limit at it."""
    for digits in range(3, 17):
        text = f"{value:.{digits}f}"
        if (float(text) <= limit) == (value <= limit):
            return text
    return repr(value)


def verdicts(rows: Rows, times: int) -> list[Verdict]:
    """Return a verdict for each line of what is to be reached.

    Args:
        rows: by model and setting.
        times: what the batch was multiplied by; at other than TIMES peaks are shown, not judged.
    """
    planned, swept = list(_of(rows, PLANNED)), list(_of(rows, SWEPT))
    least = [each for each in planned if each[1] == LEAST]
    recommended = [each for each in planned if each[1] == RECOMMENDED]
    peaks = _judged(
        f"peak at {LEAST} / checkpointing's, --times {times}",
        [each for each in least if "peak_checkpoint" in each[2] or "failed" in each[2]],
        *("peak_checkpoint", _PEAK),
    )
    if times != TIMES:
        peaks = Verdict(peaks.what, peaks.value, _PEAK, "not measured", peaks.models, peaks.where)
    return [
        _judged("graphs more than compiled dense's", planned + swept, "more_graphs", 0),
        _judged(f"step at {LEAST} of eager dense's bytes, median", least, "step", _STEP, True),
        _judged(f"gradient error at {LEAST}, median", least, "error", _ERROR, True),
        peaks,
        _judged(f"held at {RECOMMENDED} / compiled dense's", recommended, "held_compiled", _HELD),
        *_at_equal_bytes(rows),
        _judged("seconds of compilation / compiled dense's", planned, "compile", _COMPILE),
        _judged("bytes measured / their limit, of all plans", planned + swept, "of_limit", 1),
        _judged("steps that fall in a sweep", list(_falls(rows)), "falls", 0),
        _judged("predicted peak / measured, off by", planned + swept, "peak_off", _PREDICTED),
    ]


def _of(rows: Rows, kind: str) -> Iterator[tuple[str, str, Row]]:
    for model, settings in rows.items():
        for setting, row in settings.items():
            if row["kind"] == kind:
                yield model, setting, row


def _judged(
    what: str, rows: Sequence[tuple[str, str, Row]], key: str, limit: float, middle: bool = False
) -> Verdict:
    """Return the verdict on the worst of rows, or on their median."""
    failed = [f"{model} {setting}: failed" for model, setting, row in rows if "failed" in row]
    known = [(row[key], f"{model} {setting}") for model, setting, row in rows if key in row]
    models = len({model for model, _, row in rows if key in row})
    if not known and not failed:
        return Verdict(what, None, limit, "not measured", 0)
    worst, where = max(known, default=(None, ""))
    value = statistics.median(each for each, _ in known) if middle and known else worst
    good = value is not None and value <= limit and not failed
    return Verdict(
        *(what, value, limit, "reached" if good else "missed", models),
        failed[0] if failed else "" if middle else where,
    )


def _at_equal_bytes(rows: Rows) -> Iterator[Verdict]:
    """Time at equal bytes, or bytes at equal time: the better of the two, for each model."""
    for model in AT_EQUAL_BYTES:
        found: list[tuple[str, str, Row]] = []
        for _, setting, row in _of({model: rows.get(model, {})}, PLANNED):
            if "failed" in row:
                found.append((model, setting, row))
            elif "time_at_equal_bytes" in row:
                shares = [row["time_at_equal_bytes"] / _FASTER]
                if row["bytes_at_equal_time"] is not None:
                    shares.append(row["bytes_at_equal_time"] / _FEWER)
                found.append((model, setting, {"of_most": min(shares)}))
        what = f"{model}: time / {_FASTER:g} or bytes / {_FEWER:g}, beside torch's budget"
        yield _judged(what, found, "of_most", 1)


def _falls(rows: Rows) -> Iterator[tuple[str, str, Row]]:
    """Of each model's sweep, how many steps are faster than one of more bytes was."""
    for model, settings in rows.items():
        swept = [row for row in settings.values() if row["kind"] == SWEPT]
        if swept:
            failed = [row for row in swept if "failed" in row]
            timed = [row["scatter"] for row in swept if "scatter" in row]
            yield model, "sweep", failed[0] if failed else {"falls": falls(timed)}


def falls(scatters: Sequence[tuple[float, float]]) -> int:
    """Count the steps that fall as the bytes do: the upper quartile is below an earlier's lower.

    Args:
        scatters: quartiles of the ratios to compiled dense, by falling bytes.

    Example:
        >>> falls([(1.0, 1.1), (1.05, 1.2), (0.9, 1.02)])
        1
    """
    return sum(
        any(high < earlier for earlier, _ in scatters[:place])
        for place, (_, high) in enumerate(scatters)
    )
