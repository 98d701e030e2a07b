"""The one table of cases that asv and pytest-benchmark measure: formats, layers, devices.

ACTPRUNE_GRID=wide adds every block and sparsity, ACTPRUNE_THREADS sets the threads of torch: one
by itself, as threads that share their cores with another job wait for each other. Nothing of
actprune is imported before it is used: an older commit may lack what this one has, and then its
benchmark is skipped.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

WIDE = os.environ.get("ACTPRUNE_GRID", "") == "wide"
DEFAULT_SPECS = (
    "dense",
    "coo:sparsity=0.9",
    "csr:sparsity=0.9",
    "bsr:block=32x32,sparsity=0.9",
    "bsr:block=1x32,sparsity=0.9",
    "bsr:block=1x32,sparsity=0.9,select=priority",
    "bsr:block=32x32,sparsity=0.5",
)
BLOCKS = ("1x32", "1x64", "8x32", "32x32", "64x64")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
DEVICES = ("cpu", "cuda")
OPS = ("compress", "grad_weight", "linear")
THREADS = int(os.environ.get("ACTPRUNE_THREADS", "1"))


@dataclass(frozen=True)
class Shape:
    """A linear layer: X is (rows, features), dY is (rows, out_features)."""

    rows: int
    features: int
    out_features: int


LAYERS = {  # of ResMLP-S24 at 224 px, 32 images
    "fc1": Shape(6272, 384, 1536),
    "fc2": Shape(6272, 1536, 384),
    "tokens": Shape(12288, 196, 196),
}
COUNTED = Shape(512, 128, 128)
"""Where instructions are counted, at a fiftieth of a processor's speed."""


def specs(wide: bool = WIDE) -> list[str]:
    """The formats measured: one sparsity of most, or every sparsity and block."""
    if not wide:
        return list(DEFAULT_SPECS)
    grid = [f"{name}:sparsity={s}" for name in ("coo", "csr") for s in SPARSITIES]
    grid += [f"bsr:block={block},sparsity={s}" for block in BLOCKS for s in SPARSITIES]
    grid += [f"bsr:block=1x32,sparsity={s},select=priority" for s in SPARSITIES]
    return list(dict.fromkeys((*DEFAULT_SPECS, *grid)))


class Case:
    """One format on one layer on one device, with its inputs; the operations are its methods."""

    def __init__(self, spec: str, shape: Shape, device: str = "cpu") -> None:
        """From fixed seeds. Raises NotImplementedError for what this machine or commit lacks."""
        convert, parse, saved_bytes = since("actprune", "convert", "parse", "saved_bytes")
        if device == "cuda" and not torch.cuda.is_available():
            raise NotImplementedError("no CUDA device")
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        x = torch.randn(shape.rows, shape.features).to(device)
        self.x, self.leaf = x, x.detach().requires_grad_()
        self.dy = torch.randn(shape.rows, shape.out_features).to(device)
        layer = torch.nn.Linear(shape.features, shape.out_features).to(device)
        try:
            self.format, self.layer = parse(spec), convert(layer, spec)
        except ValueError as problem:
            raise NotImplementedError(f"this commit lacks it: {problem}") from None
        self.store = self.format.compress(self.x)
        self._saved_bytes = saved_bytes
        self._wait = torch.get_device_module(device).synchronize

    def check(self) -> "Case":
        """Itself, if grad_weight is right; else RuntimeError: a wrong result has no time."""
        (relative_error,) = since("actprune_bench.measure.tolerance", "relative_error")
        some = slice(None, None, 16)  # of the out_features: every setup waits for this
        expected = self.dy[:, some].double().t() @ self.store.to_dense().double()
        error = relative_error(self.store.grad_weight(self.dy)[some], expected)
        if not error <= allowed(len(self.x)):
            raise RuntimeError(f"grad_weight is off by {error:.2g}")
        return self

    def compress(self) -> None:
        """Prune and store X."""
        self.format.compress(self.x)
        self._wait()

    def grad_weight(self) -> None:
        """dW from the store."""
        self.store.grad_weight(self.dy)
        self._wait()

    def linear(self) -> None:
        """The whole layer, forward and backward."""
        self.layer(self.leaf).backward(self.dy)
        self._wait()

    def store_bytes(self) -> int:
        """Bytes of the compressed X."""
        return int(self.store.nbytes)

    def nbytes_ratio(self) -> float:
        """The same over the bytes of X."""
        return self.store_bytes() / (self.x.numel() * self.x.element_size())

    def saved_bytes(self) -> int:
        """What autograd holds between the layer's forward and backward."""
        return int(self._saved_bytes(self.layer, self.x))


@lru_cache(maxsize=1)
def case(spec: str, layer: str, device: str = "cpu") -> Case:
    """The case, made and checked once per process, however often a tool sets up."""
    return Case(spec, LAYERS[layer], device).check()


def allowed(terms: int) -> float:
    """The tolerance of this commit for fp32 sums of so many products."""
    try:
        (tolerance,) = since("actprune_bench.measure.tolerance", "tolerance")
    except NotImplementedError:
        (table,) = since("actprune_bench.measure.tolerance", "TOLERANCE")
        return float(table[torch.float32])
    return float(tolerance(torch.float32, terms))


MOVED = {
    "actprune_bench.data": "actprune.data",
    "actprune_bench.measure.peak": "actprune.measuring.peak",
    "actprune_bench.measure.tolerance": "actprune.tolerance",
    "actprune_bench.training.config": "actprune.training.config",
    "actprune_bench.training.step": "actprune.training.step",
    "actprune_bench.training.trainer": "actprune.training.trainer",
}
"""Where older commits have a module."""


def since(module: str, *names: str) -> tuple[Any, ...]:
    """Names of a module of actprune. Raises NotImplementedError where this commit lacks one."""
    try:
        if not _beside_actprune(module.partition(".")[0]):
            module = MOVED.get(module, module)
        found = import_module(module)
        return tuple(getattr(found, name) for name in names)
    except (ImportError, AttributeError) as problem:
        raise NotImplementedError(f"this commit lacks it: {problem}") from None


def _beside_actprune(package: str) -> bool:
    """Whether it lies where actprune does: one that is installed is of another commit."""
    specs = [find_spec(name) for name in ("actprune", package)]
    places = {Path(spec.origin).parents[1] for spec in specs if spec is not None and spec.origin}
    return None not in specs and len(places) == 1
