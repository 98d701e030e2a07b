"""Made-up but realistic records, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from actprune_bench.records.environment import environment
from actprune_common import results

SPECS = ["dense", "csr:sparsity=0.9", "bsr:block=32x32,sparsity=0.9", "bsr:block=1x32,sparsity=0.9"]

LAYERS = ["blocks.0.attn", "blocks.0.mlp.fc1", "head"]


def kernel(spec: str, op: str = "linear", layer: str = "fc1", **changes: Any) -> dict[str, Any]:
    index = SPECS.index(spec) if spec in SPECS else 1
    return {
        "spec": spec,
        "op": op,
        "layer": layer,
        "rows": 6272,
        "features": 384,
        "out_features": 1536,
        "dtype": "float32",
        "device": "cpu",
        "backend": "cpu",
        "samples_ms": [10.0 - index, 11.0 - index, 12.0 - index],
        "median_ms": 11.0 - index,
        "ratio_to_dense": (11.0 - index) / 11,
        "nbytes": 1000,
        "nbytes_ratio": 1.0 if spec == "dense" else 0.1015,
        "rel_error": 3e-7,
        "ok": True,
        "error": None,
        "command": f"actprune kernels --format '{spec}'",
    } | changes


def layer(name: str, rel_error: float, **changes: Any) -> dict[str, Any]:
    """Of a gradient whose error is all bias."""
    return {
        "layer": name,
        "cosine": 1 - rel_error**2 / 2,
        "norm_ratio": 1 - rel_error / 2,
        "rel_error": rel_error,
        "bias": rel_error,
        "draws": 8,
    } | changes


def training(spec: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    index = SPECS.index(spec) if spec in SPECS else 1
    return {
        "spec": spec,
        "model": "resmlp_tiny",
        "data": "embedded",
        "data_digest": "sha256:" + "0" * 64,
        "seed": seed,
        "epochs": 2,
        "steps": 156,
        "batch_size": 128,
        "step_ms": 200.0 - 10 * index,
        "step_samples_ms": [200.0 - 10 * index] * 3,
        "ratio_to_dense": (200.0 - 10 * index) / 200,
        "saved_bytes": 135_000_000 - 15_000_000 * index,
        "saved_ratio": 1 - index / 9,
        "predicted_peak_bytes": 150_000_000,
        "measured_peak_bytes": 151_000_000,
        "accuracy": 80.0 - index + seed,
        "accuracy_per_epoch": [70.0, 80.0 - index + seed],
        "accuracy_delta": -1.0 * index,
        "grad_cosine": 1 - index / 10,
        "layers": [layer(name, index / 10) for name in LAYERS] if index else [],
        "command": f"actprune train --spec '{spec}'",
    } | changes


def make(
    described: Mapping[str, Any],
    kernels: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
) -> results.Results:
    """Results from plain values, checked as those of a file are."""
    values = {"environment": dict(described), "kernels": list(kernels), "training": list(runs)}
    return results.validate({"schema": 1, **values}, "results")


def sample(*, seeds: int = 2) -> results.Results:
    """Four formats, three operations, a small heat map, and training over some seeds."""
    kernels = [kernel(spec, op) for spec in SPECS for op in ("compress", "grad_weight", "linear")]
    kernels += [
        kernel(f"bsr:block={block},sparsity={sparsity}", "grad_weight")
        for block in ("1x64", "64x64")
        for sparsity in (0.5, 0.9)
    ]
    runs = [training(spec, seed) for seed in range(seeds) for spec in SPECS]
    return make(environment("actprune compare"), kernels, runs)
