"""The asv suite: the same cases on every commit, inputs made and checked in setup."""

import torch

from actprune import convert, parse, saved_bytes
from actprune.measuring.peak import predicted_peak
from actprune.tolerance import TOLERANCE, relative_error
from actprune.training.config import TrainConfig

SPECS = [
    "dense",
    "coo:sparsity=0.9",
    "csr:sparsity=0.9",
    "bsr:block=32x32,sparsity=0.9",
    "bsr:block=1x32,sparsity=0.9",
    "bsr:block=1x32,sparsity=0.9,select=priority",
]
SHAPES = {"fc1": (6272, 384, 1536), "fc2": (6272, 1536, 384), "tokens": (12288, 196, 196)}


class Kernels:
    """One format on one layer of ResMLP-S24."""

    params = (SPECS, list(SHAPES))
    param_names = ("spec", "layer")

    def setup(self, spec: str, layer: str) -> None:
        torch.set_num_threads(2)
        torch.manual_seed(0)
        rows, features, out_features = SHAPES[layer]
        self.x, self.dy = torch.randn(rows, features), torch.randn(rows, out_features)
        self.format = parse(spec)
        self.store = self.format.compress(self.x)
        self.linear = convert(torch.nn.Linear(features, out_features), spec)
        expected = self.dy.double().t() @ self.store.to_dense().double()
        error = relative_error(self.store.grad_weight(self.dy), expected)
        if error > TOLERANCE[torch.float32]:  # no time for a wrong result
            raise RuntimeError(f"{spec}: grad_weight is off by {error:.2g}")

    def time_compress(self, spec: str, layer: str) -> None:
        self.format.compress(self.x)

    def time_grad_weight(self, spec: str, layer: str) -> None:
        self.store.grad_weight(self.dy)

    def time_linear(self, spec: str, layer: str) -> None:
        self.linear(self.x).backward(self.dy)

    def track_store_bytes(self, spec: str, layer: str) -> int:
        return self.store.nbytes

    def track_saved_bytes(self, spec: str, layer: str) -> int:
        return saved_bytes(self.linear, self.x)

    track_store_bytes.unit = track_saved_bytes.unit = "bytes"  # type: ignore[attr-defined]


class Peak:
    """The predicted peak of a training step at full size: deterministic, nothing is allocated."""

    params = (SPECS, ["resmlp_s12", "resmlp_s24"])
    param_names = ("spec", "model")
    timeout = 300

    def track_predicted_peak(self, spec: str, model: str) -> int:
        return predicted_peak(TrainConfig(model=model, batch_size=128, spec=spec))

    track_predicted_peak.unit = "bytes"  # type: ignore[attr-defined]
