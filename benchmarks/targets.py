"""`make bench`: the speed and memory targets, measured in one run, beside what was reached.

All times are medians of samples interleaved with dense in this process, as ratios; see
docs/measuring.md for what they mean and why a line is missed. Exits 0 whatever is reached: a shared
machine is no judge.
"""

import argparse
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from actprune import parse
from actprune.compare import S24
from actprune.environment import environment
from actprune.measuring.kernels import Shape, interleave, measure_kernels, rotating_inputs
from actprune.memory import saved_bytes
from actprune.training.config import TrainConfig
from actprune.training.step import build, example_batch, loss_of, training_step

BSR = ("bsr:block=32x32,sparsity=0.9", "bsr:block=1x32,sparsity=0.9")
SPECS = ("csr:sparsity=0.9", *BSR)


@dataclass(frozen=True)
class Line:
    """One target: what was measured, and the bound, upper unless `at_least`."""

    what: str
    reached: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.reached >= self.bound if self.at_least else self.reached <= self.bound


def kernel_lines(samples: int) -> list[Line]:
    """Compress, grad_weight and the whole linear layer at ResMLP-S24's shapes."""
    shapes = [Shape(**shape.model_dump()) for shape in S24 if shape.name != "tokens"]
    found = {
        (str(r["op"]), str(r["layer"]), str(r["spec"])): r
        for r in measure_kernels(SPECS, shapes, samples=samples)
    }

    def ratio(op: str, layer: str, spec: str) -> float:
        value = found[op, layer, spec]["ratio_to_dense"]
        assert isinstance(value, float), found[op, layer, spec]["error"]
        return value

    lines = []
    for spec in BSR:
        block = spec.partition("=")[2].partition(",")[0]
        lines.append(Line(f"compress {block}, fc2, / copy", ratio("compress", "fc2", spec), 2.0))
        for layer in ("fc1", "fc2"):
            dense = 1 / ratio("grad_weight", layer, spec)
            csr = ratio("grad_weight", layer, SPECS[0]) * dense
            lines.append(Line(f"grad_weight {block}, {layer}, dense / ours", dense, 6, True))
            lines.append(Line(f"grad_weight {block}, {layer}, our CSR / ours", csr, 4, True))
            lines.append(
                Line(f"linear {block}, {layer}, / dense", ratio("linear", layer, spec), 0.80)
            )
    return lines


def library_lines(samples: int) -> list[Line]:
    """grad_weight of 32x32 blocks against torch's own BSC and CSR products, interleaved."""
    lines = []
    for shape in (Shape(**shape.model_dump()) for shape in S24 if shape.name != "tokens"):
        inputs, grads = rotating_inputs(shape, torch.float32, seed=0)
        stores = [parse(BSR[0]).compress(x) for x in inputs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's sparse layouts say that they are in beta
            bsc = [store.to_dense().to_sparse_bsc((32, 32)) for store in stores]
            csr = [store.to_dense().t().to_sparse_csr() for store in stores]
        count = len(inputs)

        def ours(i: int, stores: Sequence[object] = stores, grads: list[Tensor] = grads) -> object:
            return stores[i % len(stores)].grad_weight(grads[i % len(grads)])  # type: ignore[attr-defined]

        def torch_bsc(i: int, bsc: list[Tensor] = bsc, grads: list[Tensor] = grads) -> object:
            return grads[i % len(grads)].t() @ bsc[i % len(bsc)]

        def torch_csr(i: int, csr: list[Tensor] = csr, grads: list[Tensor] = grads) -> object:
            return csr[i % len(csr)] @ grads[i % len(grads)]

        assert count == len(bsc)
        for other in (torch_bsc(0), torch_csr(0).t()):  # type: ignore[attr-defined]
            torch.testing.assert_close(ours(0), other, rtol=1e-3, atol=1e-2)
        own, blocks, rows = map(
            statistics.median, interleave([ours, torch_bsc, torch_csr], samples)
        )
        lines.append(
            Line(f"grad_weight 32x32, {shape.name}, torch BSC / ours", blocks / own, 2, True)
        )
        lines.append(
            Line(f"grad_weight 32x32, {shape.name}, torch CSR / ours", rows / own, 4, True)
        )
    return lines


def training_lines(samples: int) -> list[Line]:
    """Whole training steps, and what the linear inputs keep."""
    lines = []
    for model, batch in (("resmlp_tiny", 128), ("resmlp_s12", 16)):
        configs = [TrainConfig(model=model, batch_size=batch, spec=s) for s in ("dense", *BSR)]
        runs = [build(config) for config in configs]
        images, labels = example_batch(configs[0])
        images.normal_()

        def step(i: int, run: int = 0) -> object:
            return training_step(*runs[run], images, labels)  # noqa: B023  called within the loop

        steps = [lambda i, n=n, step=step: step(i, n) for n in range(len(runs))]
        times = [statistics.median(t) for t in interleave(steps, samples)]
        saved = [saved_bytes(loss_of, run[0], images, labels) for run in runs]
        inputs = 6 / 14  # linear inputs among what a block keeps: docs/math.md
        for n, spec in enumerate(BSR, start=1):
            block = spec.partition("=")[2].partition(",")[0]
            lines.append(Line(f"step {model} {block}, / dense", times[n] / times[0], 0.90))
            lines.append(
                Line(
                    f"all saved bytes {model} {block}, / dense",
                    saved[n] / saved[0],
                    1 - inputs * 0.89,
                )
            )
    return lines


def saved_lines() -> list[Line]:
    """Bytes of the stores of one block's linear inputs against dense ones."""
    x = {shape.name: torch.randn(shape.rows, shape.features) for shape in S24}
    lines = []
    for spec in BSR:
        block = spec.partition("=")[2].partition(",")[0]
        kept = sum(parse(spec).compress(value).nbytes for value in x.values())
        dense = sum(value.nbytes for value in x.values())
        lines.append(Line(f"saved linear inputs {block}, / dense", kept / dense, 0.105))
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lines = [
        *saved_lines(),
        *kernel_lines(given.samples),
        *library_lines(given.samples),
        *training_lines(max(3, given.samples // 2)),
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("what", "reached", "to reach", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for line in lines:
        sign = ">=" if line.at_least else "<="
        mark = "met" if line.met else f"missed by {abs(line.reached / line.bound - 1):.0%}"
        table.add_row(line.what, f"{line.reached:.3f}", f"{sign} {line.bound:.3g}", mark)
    console = Console()
    console.print(table)
    found = environment("python benchmarks/targets.py")
    machine = f"{found['date']}, {found['cpu']}, {found['threads']} threads, torch {found['torch']}"
    console.print(machine, highlight=False)


if __name__ == "__main__":
    main()
