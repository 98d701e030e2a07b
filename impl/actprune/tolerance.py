"""The one table of tolerances: relative error (Frobenius) against float64, by dtype."""

import torch
from torch import Tensor

TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 6e-3,
}


def relative_error(got: Tensor, expected: Tensor) -> float:
    """‖got − expected‖ / ‖expected‖ in float64; 0 where both vanish, inf where only one does."""
    difference = float((got.double() - expected.double()).norm())
    size = float(expected.double().norm())
    if size:
        return difference / size
    return float("inf") if difference else 0.0
