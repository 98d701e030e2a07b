"""The asv suite: the table of cases, peaks of training steps, kernels compiled for GPUs, training.

Inputs are made and checked in setup. What a machine or an older commit cannot run is skipped by a
NotImplementedError there.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # once, for all processes forked from this one: custom operators need it

from benchmarks.cases import DEFAULT_SPECS, DEVICES, LAYERS, THREADS, WIDE, Case, case, since, specs

with suppress(ImportError):  # an older commit: its benchmarks say what they lack
    import actprune  # noqa: F401

TRAINED = ["dense", "csr:sparsity=0.9", "bsr:block=1x32,sparsity=0.9,select=priority"]
COMPILED = ["compile+dense", "compile(0.1)+dense"]
MODELS = ["resmlp_s12", "resmlp_s24", "resmlp_s36", "resmlp_b24"]
KERNELS = [
    *(f"bsr {name}" for name in ("block_norms", "gather", "grad_weight", "scatter", "sum_parts")),
    *(f"codes {name}" for name in ("pack", "pack_bits", "unpack", "unpack_bits")),
    "csr grad_weight",
    *(f"gelu {name}" for name in ("backward", "forward")),
    *(f"quantization {name}" for name in ("decode", "encode")),
    *(
        f"selection {name}"
        for name in (
            *("compact", "place_chunk", "sample_ranks", "scale_kept"),
            *("select_column", "select_row"),
        )
    ),
]
ARCHES = [80, 90, 100]
Figures = dict[tuple[str, int], dict[str, int]]


class Kernels:
    """One format on one layer of ResMLP-S24."""

    params = (specs(), list(LAYERS), list(DEVICES))
    param_names = ("spec", "layer", "device")
    timeout = 120
    threads = THREADS  # for `actprune-ci ab`: what needs one core shares one

    def setup(self, spec: str, layer: str, device: str) -> None:
        self.case = case(spec, layer, device)

    def time_compress(self, spec: str, layer: str, device: str) -> None:
        self.case.compress()

    def time_grad_weight(self, spec: str, layer: str, device: str) -> None:
        self.case.grad_weight()

    def time_linear(self, spec: str, layer: str, device: str) -> None:
        self.case.linear()


class Bytes:
    """What the same cases keep: the same on every device."""

    params = (specs(), list(LAYERS))
    param_names = ("spec", "layer")

    def setup(self, spec: str, layer: str) -> None:
        self.case = Case(spec, LAYERS[layer])

    def track_store_bytes(self, spec: str, layer: str) -> int:
        return self.case.store_bytes()

    def track_saved_bytes(self, spec: str, layer: str) -> int:
        return self.case.saved_bytes()

    def track_nbytes_ratio(self, spec: str, layer: str) -> float:
        return self.case.nbytes_ratio()

    track_store_bytes.unit = track_saved_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_nbytes_ratio.unit = "ratio"  # type: ignore[attr-defined]


class Executed:
    """What the same operations execute on a CPU, on a small layer: no clock, no load, no noise."""

    params = (list(DEFAULT_SPECS), ["compress", "grad_weight"])
    param_names = ("spec", "operation")
    deterministic = True  # for `actprune-ci ab`, which then counts once per side

    def setup_cache(self) -> dict[tuple[str, str], Any]:
        return executed(product(*self.params))

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def setup(self, counts: dict[tuple[str, str], Any], spec: str, operation: str) -> None:
        if (spec, operation) not in counts:
            raise NotImplementedError("not counted here: needs valgrind on Linux with x86-64")
        self.counts = counts[spec, operation]
        self.counts.figure("instructions")  # says why where there is none

    def track_instructions(self, counts: object, spec: str, operation: str) -> int:
        return int(self.counts.figure("instructions"))

    def track_cache_misses(self, counts: object, spec: str, operation: str) -> int:
        return int(self.counts.figure("cache_misses"))

    track_instructions.unit = track_cache_misses.unit = "1"  # type: ignore[attr-defined]


class Peak:
    """The predicted peak of a training step at full size: deterministic, nothing is allocated."""

    params = (specs() if WIDE else TRAINED, MODELS)
    param_names = ("spec", "model")
    timeout = 900

    def setup(self, spec: str, model: str) -> None:
        (self.predict,) = since("actprune_bench.measure.peak", "predicted_peak")
        self.config = configured(model=model, batch_size=128, spec=spec)

    def track_predicted_peak(self, spec: str, model: str) -> int:
        return int(self.predict(self.config))

    track_predicted_peak.unit = "bytes"  # type: ignore[attr-defined]


class Training:
    """A short training of resmlp_tiny on images that the package brings along."""

    params = (TRAINED, list(DEVICES))
    param_names = ("spec", "device")
    timeout = 300
    threads = THREADS

    def setup(self, spec: str, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise NotImplementedError("no CUDA device")
        torch.set_num_threads(THREADS)
        build, batch, self.step = since(
            "actprune_bench.training.step", "build", "example_batch", "training_step"
        )
        config = configured(spec=spec)
        self.model, self.optimizer = build(config, device=device)
        self.batch = batch(config, device=device)
        self.batch[0].normal_(generator=torch.Generator(device).manual_seed(0))

    def one_step(self) -> None:
        self.step(self.model, self.optimizer, *self.batch)
        torch.get_device_module(self.batch[0].device).synchronize()

    def time_step(self, spec: str, device: str) -> None:
        self.one_step()

    time_step.number = 3  # type: ignore[attr-defined]

    def peakmem_step(self, spec: str, device: str) -> None:
        self.one_step()
        self.one_step()  # the optimizer's state is there from the first on


class Compiled:
    """The same by torch.compile, as it is and within a tenth of the bytes."""

    params = (COMPILED,)
    param_names = ("spec",)
    timeout = 600
    threads = THREADS

    def setup(self, spec: str) -> None:
        self.training = Training()
        try:
            self.training.setup(spec, "cpu")
            self.training.one_step()  # compiles
            self.training.one_step()
        except (RuntimeError, ValueError) as problem:
            raise NotImplementedError(f"not compiled here: {problem}") from None

    def time_step(self, spec: str) -> None:
        self.training.one_step()

    def track_saved_bytes(self, spec: str) -> int:
        saved, loss_of = since("actprune", "saved_bytes") + since(
            "actprune.inspect.gradients", "loss_of"
        )
        return int(saved(loss_of, self.training.model, *self.training.batch))

    time_step.number = 3  # type: ignore[attr-defined]
    track_saved_bytes.unit = "bytes"  # type: ignore[attr-defined]


class DevicePeak:
    """What a training step has a GPU allocate at most, in a process that does nothing else."""

    params = (TRAINED,)
    param_names = ("spec",)
    timeout = 300

    def setup(self, spec: str) -> None:
        self.training = Training()
        self.training.setup(spec, "cuda")

    def track_measured_peak(self, spec: str) -> int:
        self.training.one_step()
        self.training.one_step()
        return int(torch.cuda.max_memory_allocated())

    track_measured_peak.unit = "bytes"  # type: ignore[attr-defined]


class Trained:
    """What comes out of 40 steps, apart from how long each takes."""

    params = (TRAINED,)
    param_names = ("spec",)
    timeout = 300

    def setup(self, spec: str) -> None:
        (trainer,) = since("actprune_bench.training.trainer", "Trainer")
        (load_data,) = since("actprune_bench.data", "load_data")
        config = configured(spec=spec, epochs=2, limit_train=2560, limit_test=1000, threads=THREADS)
        data = load_data(config.data, config.image_size, config.limit_train, config.limit_test)
        self.trainer = trainer(config, data)

    def track_throughput(self, spec: str) -> float:
        """Images a second, once it runs steadily."""
        steady = self.trainer.advance(15)[5:]
        return float(1000 * self.trainer.config.batch_size / statistics.median(steady))

    def track_accuracy(self, spec: str) -> float:
        self.trainer.advance(self.trainer.total_steps)
        return float(self.trainer.history[-1]["accuracy"])

    track_throughput.unit = "images/s"  # type: ignore[attr-defined]
    track_accuracy.unit = "%"  # type: ignore[attr-defined]


class Static:
    """Each GPU kernel as compiled, over all its variants; no GPU is needed."""

    params = (KERNELS, ARCHES)
    param_names = ("kernel", "arch")
    deterministic = True  # for `actprune-ci ab`, which then compiles once per side

    def setup_cache(self) -> Figures:
        return compiled_figures()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def setup(self, figures: Figures, kernel: str, arch: int) -> None:
        if (kernel, arch) not in figures:
            raise NotImplementedError("not compiled here: needs Triton and `actprune static`")
        self.figures = figures[kernel, arch]

    def track_registers(self, figures: Figures, kernel: str, arch: int) -> int:
        """Of the variant with the most."""
        return self.figures["registers"]

    def track_registers_of_all(self, figures: Figures, kernel: str, arch: int) -> int:
        """Summed up, so that one more in any variant shows."""
        return self.figures["registers_of_all"]

    def track_spill_bytes(self, figures: Figures, kernel: str, arch: int) -> int:
        return self.figures["spill_bytes"]

    def track_shared_bytes(self, figures: Figures, kernel: str, arch: int) -> int:
        return self.figures["shared_bytes"]

    def track_code_bytes(self, figures: Figures, kernel: str, arch: int) -> int:
        return self.figures["code_bytes"]

    track_registers.unit = track_registers_of_all.unit = "registers"  # type: ignore[attr-defined]
    track_spill_bytes.unit = track_shared_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_code_bytes.unit = "bytes"  # type: ignore[attr-defined]


def timeraw_import_actprune() -> str:
    return "import actprune"


timeraw_import_actprune.number = 1  # type: ignore[attr-defined]


def configured(**values: Any) -> Any:
    """A TrainConfig. Raises NotImplementedError where this commit does not know it so."""
    (config,) = since("actprune_bench.training.config", "TrainConfig")
    try:
        return config(**values)
    except ValueError as problem:
        raise NotImplementedError(f"this commit lacks it: {problem}") from None


def executed(cases: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """The counts of operations by spec and name; none where they cannot be had."""
    try:
        (count,) = since("actprune_ci.measure.counts", "count")
        setup = "from benchmarks.cases import COUNTED, Case\ncase = Case({!r}, COUNTED).check()"
        calls = {f"{s} {op}": (f"case.{op}()", setup.format(s)) for s, op in cases}
        found = count(calls)
    except NotImplementedError as problem:
        print(problem, file=sys.stderr)
        return {}
    return {tuple(name.rsplit(" ", 1)): counts for name, counts in found.items()}


def compiled_figures() -> Figures:
    """`actprune static`'s figures by kernel and architecture; none where it cannot run."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "static.json"
        words = (sys.executable, "-m", "actprune", "static", "--out", str(out))
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if not out.exists():  # it is there even where a kernel spills
            print(done.stderr)
            return {}
        return summed(json.loads(out.read_text("utf-8"))["records"])


def summed(records: list[dict[str, Any]]) -> Figures:
    """Variants of a kernel together: the most registers and shared memory, all else summed."""
    variants = defaultdict(list)
    for record in records:
        kernel = record["kernel"]
        if kernel in ("codes encode", "codes decode"):  # of commits from before 2026-11
            kernel = kernel.replace("codes", "quantization")
        variants[kernel, record["arch"]].append(record)
    return {
        key: {
            "registers": max(each["registers"] for each in found),
            "registers_of_all": sum(each["registers"] for each in found),
            "spill_bytes": sum(r["spill_store_bytes"] + r["spill_load_bytes"] for r in found),
            "shared_bytes": max(each["shared_bytes"] for each in found),
            "code_bytes": sum(each["code_bytes"] for each in found),
        }
        for key, found in variants.items()
    }
