"""The derivative of GELU and SiLU in few bits, in place of their input."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from actprune.formats.base import Format
from actprune_common.errors import InputError, check_one_of
from actprune_kernels.gelu import BITS


@dataclass(frozen=True, kw_only=True)
class Derivative(Format):
    """What GELU's and SiLU's backward pass multiplies by, to the nearest of 2^bits levels.

    A format of rules alone, `@activation=>derivative:bits=2`: it keeps a function, not a matrix.
    Nothing else has such a derivative: not the tanh approximation of GELU, nor tanh itself; the
    next rule that names these decides for them.

    Args:
        bits: To a value: 2 or 4.

    Raises:
        InputError: An option has another value.
    """

    name = "derivative"
    bits: int = 2
    exact = False
    fields = ("codes",)

    def __post_init__(self) -> None:
        check_one_of("bits", self.bits, BITS)

    def kernels(self, device: torch.device, dtype: torch.dtype) -> ModuleType:
        raise self.refusal()

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        raise self.refusal()

    def refusal(self) -> InputError:
        """What is raised where a matrix is to be stored."""
        return InputError(
            "spec: derivative is kept of GELU and SiLU in place of their input, and stores no "
            f"matrix: it stands in rules alone, @activation=>{self.spec}"
        )
