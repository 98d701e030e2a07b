"""What the kernels' machine code says, as one table in the terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter

from rich.console import Console
from rich.progress import Progress

from actprune_bench.gpu_static.compilation import CompiledKernel
from actprune_bench.report.table import spec_table

_HEADINGS = (
    *("sm_", "variants", "registers", "spilled\nbytes", "shared\nbytes", "code\nKiB"),
    *("tensor\ncores", "global\nloads", "of 16\nbytes, %", "local\nloads", "occupancy\n%"),
)
_TENSOR_CORES = {"hmma": "HMMA", "wgmma": "wgmma", "tcgen05": "tcgen05"}


def print_static(records: Sequence[CompiledKernel], console: Console) -> None:
    """Print a line per kernel, dtype and architecture, with ranges over its variants."""
    key = attrgetter("kernel", "dtype", "arch")
    table = spec_table("kernel", _HEADINGS, ["dtype"])
    for (kernel, dtype, arch), members in groupby(sorted(records, key=key), key):
        table.add_row(kernel, dtype, str(arch), *_cells(list(members)))
    table.add_section()
    table.add_row("all", "", "", *_cells(records))
    console.print(table)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal; call it with done and total."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _cells(records: Sequence[CompiledKernel]) -> list[str]:
    spilled = [record.spill_store_bytes + record.spill_load_bytes for record in records]
    wide = [100 * r.global_loads_16_bytes // max(1, r.global_loads) for r in records]
    used = [name for key, name in _TENSOR_CORES.items() if any(getattr(r, key) for r in records)]
    return [
        str(len(records)),
        _range([record.registers for record in records]),
        f"[bold red]{_range(spilled)}[/]" if any(spilled) else "0",
        _range([record.shared_bytes for record in records]),
        _range([round(record.code_bytes / 1024) for record in records]),
        "\n".join(used) or "—",
        _range([record.global_loads for record in records]),
        _range(wide),
        _range([record.local_loads for record in records]),
        _range([round(100 * record.occupancy) for record in records]),
    ]


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"
