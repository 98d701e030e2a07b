"""What a comparison says while it runs."""

from io import StringIO

import pytest
from rich.console import Console

from actprune_bench.compare import run
from actprune_bench.compare.run import ProgressLines


def test_in_a_pipe_progress_is_a_line_with_an_estimate_every_ten_seconds() -> None:
    out, clock = StringIO(), iter([0.0, 4.0, 12.0, 30.0, 31.0, 45.0, 60.0, 75.0])
    say = ProgressLines(Console(file=out, width=200), now=lambda: next(clock))
    for text, done, total in (
        ("kernels: fc1 compress", 0, 100),
        ("kernels: fc1 grad_weight", 10, 100),  # too soon after the line before
        ("kernels: fc1 linear", 40, 100),
        ("kernels: fc2 compress", 50, 100),
        ("training dense, seed 0", 20, 40),  # resumed
        ("training dense, seed 0", 30, 40),
        ("peaks: dense", 2, 4),  # resumed: nothing yet tells how fast it goes
        ("peaks: csr", 3, 4),
    ):
        say(text, done, total)
    assert out.getvalue().splitlines() == [
        "kernels: fc1 compress (0% of the kernels)",
        "kernels: fc1 linear (40% of the kernels, about 18 s of it left)",
        "kernels: fc2 compress (50% of the kernels, about 30 s of it left)",
        "training dense, seed 0 (75% of the training, about 14 s of it left)",
        "peaks: dense (50% of the peaks)",
        "peaks: csr (75% of the peaks, about 15 s of it left)",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_in_a_terminal_alone(terminal: bool) -> None:
    console = Console(file=StringIO(), force_terminal=terminal, width=100)
    with run._progress(console) as report:
        report("kernels: fc1 compress", 0, 10)
        assert isinstance(report, ProgressLines) is not terminal
