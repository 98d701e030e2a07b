"""The one table of tolerances: relative error (Frobenius) against float64, by dtype."""

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}


_TERMS = 4096


def tolerance(dtype: torch.dtype, terms: int) -> float:
    """TOLERANCE for sums of `terms` products: beyond 4096, rounding errors grow as its root.

    In half precision the rounding of the result, which does not grow, is far above that.
    """
    longer = max(1.0, terms / _TERMS) ** 0.5 if dtype.itemsize >= 4 else 1.0
    return TOLERANCE[dtype] * longer


def relative_error(got: Tensor, expected: Tensor) -> float:
    """‖got − expected‖ / ‖expected‖ in float64; 0 where both vanish, inf where only one does."""
    difference = float((got.double() - expected.double()).norm())
    size = float(expected.double().norm())
    if size:
        return difference / size
    return float("inf") if difference else 0.0
