"""Calls that are not plain ones on plain tensors: transforms, tracers, jagged tensors."""

import sys
import warnings
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.jit import is_tracing  # type: ignore[attr-defined]

from actprune.layers.tensor_parallel import Multiply


def torch_alone() -> bool:
    """Whether something runs of which a custom autograd function is no part.

    That are torch.func's transforms, which differentiate and batch operators themselves, gradients
    in forward mode, and torch.jit.trace and torch.export, whose graphs are of forward alone.
    """
    batched: bool = torch._C._are_functorch_transforms_active()
    # is_exporting() of torch before 2.13 is true where torch.compile traces
    traced: bool = torch.compiler._is_exporting_flag or is_tracing()  # type: ignore[no-untyped-call]
    return batched or traced or forward_ad._current_level >= 0


def is_batched(grad: Tensor) -> bool:
    """Whether torch.autograd.grad(is_grads_batched=True) runs, whose vmap knows no custom rules."""
    if torch.compiler.is_compiling():
        return False
    batched: bool = torch._C._functorch.is_legacy_batchedtensor(grad)
    return batched


def called_by_fx(module: nn.Module, *inputs: Any) -> Any:
    """Return the node that calls `module` as a whole, as it does nn.Linear, where fx traces.

    None where it does not.
    """
    proxy = next((part for part in inputs if isinstance(part, fx.Proxy)), None)
    if proxy is None:
        return None
    tracer = proxy.tracer
    assert isinstance(tracer, fx.Tracer)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), inputs, {})


def warn_of_adapters() -> None:
    """Say that a layer was frozen since it was converted, where a layer of PEFT's calls it.

    Its adapters then train in the layer's place, and nobody has converted them.
    """
    if torch.compiler.is_compiling() or "peft" not in sys.modules:
        return
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_CALLERS):
        if frame is None:
            return
        if frame.f_globals.get("__name__", "").startswith("peft."):
            warnings.warn(
                "layers that actprune.convert made were frozen since and keep nothing; adapters "
                "that PEFT put on them keep their inputs dense until the model is converted again",
                stacklevel=2,
            )
            return
        frame = frame.f_back


_CALLERS = 8
"""Between this module and the one around the layer: the layer's methods, and nn.Module's calls."""


def over_jagged(multiply: Multiply, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply the values of a jagged tensor (batch, ragged, in).

    Other nested tensors torch multiplies, and keeps as they are.
    """
    jagged: Any = input
    if input.layout != torch.jagged or jagged.lengths() is not None or jagged._ragged_idx != 1:
        return F.linear(input, weight, bias)
    # its offsets as they are, so that torch takes the two for equally ragged
    values = multiply(jagged.values(), weight, bias)
    made: Tensor = torch.nested.nested_tensor_from_jagged(values, jagged.offsets(), jagged_dim=1)
    return made
