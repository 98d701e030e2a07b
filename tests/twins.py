"""A model and its twin to which a spec is applied, whose gradients tests compare."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn

from actprune.layers import ops
from actprune.saved import keeping, tensors
from actprune.saved.keeping import Saved
from actprune.strategies.grammar import RECOMMENDED, apply
from actprune_kernels.gelu import naive


class Kept:
    """A store of codes that loses nothing, so that only what surrounds it can be wrong."""

    name = "kept"

    def __init__(self, flat: Tensor, bits: int, group: int) -> None:
        self.kept, self.bits = flat.clone(), bits

    @property
    def nbytes(self) -> int:
        """Fewer than any tensor has."""
        return 0

    def flat(self) -> Tensor:
        """One's own, as that of codes is."""
        return self.kept.clone()


def _derivative(h: Tensor, bits: int, name: str) -> Tensor:
    return naive.derivative(h, name)


def _backward_(grad: Tensor, derivative: Tensor, bits: int, name: str) -> None:
    grad.mul_(derivative)


@contextmanager
def lossless(small: int = 0) -> Iterator[None]:
    """Let codes lose nothing, and reach every tensor over `small` bytes."""
    with (
        mock.patch.object(keeping, "Coded", Kept),
        mock.patch.object(tensors, "SMALL", small),
        mock.patch.object(ops, "derivative_codes", _derivative),
        mock.patch.object(ops, "gelu_backward_", _backward_),
    ):
        yield


class Net(nn.Module):
    """A function of modules, parameters and buffers, which it finds by their names."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)

    if TYPE_CHECKING:  # a part is what it is

        def __getattr__(self, name: str) -> Any: ...


def twin(model: nn.Module, spec: str = RECOMMENDED) -> nn.Module:
    """A copy with the spec applied, that logs what is saved."""
    made = apply(copy.deepcopy(model), spec)
    vars(made)["forward"].log = []
    return made


def log(model: nn.Module) -> list[Saved]:
    """What a forward pass of a twin saved."""
    found: list[Saved] = vars(model)["forward"].log
    return found


def step(
    model: nn.Module,
    *args: Any,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """The output, the gradients and the buffers after one step, by name, in doubles."""
    torch.manual_seed(0)
    model.zero_grad()
    args = tuple(_own(part) for part in args)
    with around():
        out = model(*args, **kwargs)
    out = getattr(out, "logits", out)
    wide = (torch.view_as_real(out.resolve_conj()) if out.is_complex() else out).double()
    ((wide - 1) ** 2).mean().backward()
    inputs = {f"input {at}": part for at, part in enumerate(args) if isinstance(part, Tensor)}
    leaves = [*model.named_parameters(), *inputs.items()]
    grads = {f"gradient of {name}": leaf.grad for name, leaf in leaves if leaf.grad is not None}
    buffers = {f"buffer {name}": buffer for name, buffer in model.named_buffers()}
    return {
        name: tensor.detach().clone()
        for name, tensor in ({"output": out} | grads | buffers).items()
    }


def _own(part: Any) -> Any:
    if not isinstance(part, Tensor):
        return part
    return part.detach().clone().requires_grad_(part.requires_grad)


def assert_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 0.0
) -> None:
    """Every tensor is what it is in the other, to an error relative to the largest of all: a bias
    before a norm has a gradient of rounding errors."""
    assert found.keys() == expected.keys()
    grads = [grad for name, grad in expected.items() if "gradient" in name and grad.numel()]
    largest = max((float(grad.to_dense().abs().max()) for grad in grads), default=1.0)
    for name, tensor in expected.items():
        got, whole = (each.to_dense() if each.is_sparse else each for each in (found[name], tensor))
        assert torch.allclose(got, whole, 0, tolerance * largest, equal_nan=True), name


def same_step(
    model: nn.Module,
    *args: Any,
    spec: str = RECOMMENDED,
    small: int = 0,
    tolerance: float = 0.0,
    **kwargs: Any,
) -> nn.Module:
    """Assert that a twin without loss steps as the model does; the twin."""
    other = twin(model, spec)
    expected = step(model, *args, **kwargs)
    with lossless(small):
        found = step(other, *args, **kwargs)
    assert_equal(found, expected, tolerance)
    return other
