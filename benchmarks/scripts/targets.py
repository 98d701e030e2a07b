"""`make bench`: the speed and memory targets, measured in one run, beside what was reached.

All times are medians of samples interleaved with dense in this process, as ratios; see
docs/measuring.md for what they mean and why a line is missed. Exits 0 whatever is reached: a shared
machine is no judge.
"""

import statistics
import warnings
from dataclasses import dataclass
from operator import ge, le

import torch
import typer
from rich.console import Console

from actprune import parse
from actprune_bench.compare.config import S24
from actprune_bench.measure.kernels import Shape, interleave, measure_kernels
from actprune_bench.records.environment import environment
from actprune_bench.report.table import spec_table
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import build, example_batch, training_step
from benchmarks.scripts.gpu_figures import LIBRARIES, LIBRARY_SPEC, Plan, library_records

BSR = ("bsr:block=32x32,sparsity=0.9", "bsr:block=1x32,sparsity=0.9")
SPECS = ("csr:sparsity=0.9", *BSR)
MLP = [Shape(**shape.model_dump()) for shape in S24 if shape.name != "tokens"]


@dataclass(frozen=True)
class Line:
    """One target: what was measured, and the bound, upper unless `at_least`."""

    what: str
    reached: float
    bound: float
    at_least: bool = False


def kernel_lines(samples: int) -> list[Line]:
    """Compress, grad_weight and the whole linear layer at ResMLP-S24's shapes."""
    measured = measure_kernels(SPECS, MLP, samples=samples)
    found = {(str(record.op), record.layer, record.spec): record for record in measured}

    def ratio(op: str, layer: str, spec: str) -> float:
        record = found[op, layer, spec]
        assert record.ratio_to_dense is not None, record.error
        return record.ratio_to_dense

    lines = []
    for spec in BSR:
        block = _block(spec)
        lines.append(Line(f"compress {block}, fc2, / copy", ratio("compress", "fc2", spec), 2.0))
        for layer in ("fc1", "fc2"):
            dense = 1 / ratio("grad_weight", layer, spec)
            csr = ratio("grad_weight", layer, SPECS[0]) * dense
            lines.append(Line(f"grad_weight {block}, {layer}, dense / ours", dense, 6, True))
            lines.append(Line(f"grad_weight {block}, {layer}, our CSR / ours", csr, 4, True))
            linear = ratio("linear", layer, spec)
            lines.append(Line(f"linear {block}, {layer}, / dense", linear, 0.80))
    return lines


def library_lines(samples: int) -> list[Line]:
    """grad_weight of 32x32 blocks against torch's own products, interleaved."""
    lines = []
    for shape in MLP:
        plan = Plan(torch.device("cpu"), [shape], samples, models=())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's sparse layouts say that they are in beta
            records = {each["spec"]: each for each in library_records(plan, torch.float32)}
        for name in LIBRARIES:
            assert records[name]["ok"], records[name]["error"]
            ratio = records[name]["median_ms"] / records[LIBRARY_SPEC]["median_ms"]
            library = name.split("-")[1].upper()
            what = f"grad_weight 32x32, {shape.name}, torch {library} / ours"
            lines.append(Line(what, ratio, 4 if library == "CSR" else 2, at_least=True))
    return lines


def training_lines(samples: int) -> list[Line]:
    """Whole training steps."""
    lines = []
    for model, batch in (("resmlp_tiny", 128), ("resmlp_s12", 16)):
        configs = [TrainConfig(model=model, batch_size=batch, spec=s) for s in ("dense", *BSR)]
        images, labels = example_batch(configs[0])
        images.normal_()
        given = [(*build(config), images, labels) for config in configs]
        steps = [lambda _, these=these: training_step(*these) for these in given]
        dense, *others = (statistics.median(t) for t in interleave(steps, samples))
        for spec, time in zip(BSR, others, strict=True):
            lines.append(Line(f"step {model} {_block(spec)}, / dense", time / dense, 0.90))
    return lines


def _block(spec: str) -> str:
    return spec.partition("=")[2].partition(",")[0]


def saved_lines() -> list[Line]:
    """Bytes of the stores of one block's linear inputs against dense ones."""
    x = {shape.name: torch.randn(shape.rows, shape.features) for shape in S24}
    lines = []
    for spec in BSR:
        kept = sum(parse(spec).compress(value).nbytes for value in x.values())
        dense = sum(value.nbytes for value in x.values())
        lines.append(Line(f"saved linear inputs {_block(spec)}, / dense", kept / dense, 0.105))
    return lines


def main(samples: int = 15, threads: int = 2) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    lines = [
        *saved_lines(),
        *kernel_lines(samples),
        *library_lines(samples),
        *training_lines(max(3, samples // 2)),
    ]
    table = spec_table("what", ("reached", "to reach", ""))
    for line in lines:
        sign, met = (">=", ge) if line.at_least else ("<=", le)
        missed = f"missed by {abs(line.reached / line.bound - 1):.0%}"
        mark = "met" if met(line.reached, line.bound) else missed
        table.add_row(line.what, f"{line.reached:.3f}", f"{sign} {line.bound:.3g}", mark)
    console = Console(highlight=False)
    console.print(table)
    found = environment("python -m benchmarks.scripts.targets")
    machine = f"{found['date']}, {found['cpu']}, {found['threads']} threads, torch {found['torch']}"
    console.print(machine)


if __name__ == "__main__":
    typer.run(main)
