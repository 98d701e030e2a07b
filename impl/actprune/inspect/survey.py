"""What each module of a model keeps: without a batch by its layers, with one all that is saved."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from actprune.inspect.gradients import Loss, backpropagate
from actprune.layers.convert import pruned
from actprune.layers.refusal import multiplying
from actprune.saved.keeping import Saved
from actprune.strategies.base import replacements
from actprune.strategies.grammar import RECOMMENDED, apply, undo
from actprune.strategies.saving import Saving, recording
from actprune_common.errors import InputError, expected

_HEADER: tuple[str, ...] = (
    *("module", "function", "saved for", "kept as", "count", "MiB", "held", "error", "gradients"),
)


@dataclass(frozen=True)
class Survey:
    """What autograd saves in one step of a model, and what it is kept as.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        >>> found = actprune.survey(model, torch.randn(128, 64))
        >>> [(each.module, each.function, each.store) for each in found.saved][1:]
        [('1', 'gelu', 'codes:bits=4'), ('2', 'linear', 'again by gelu')]
    """

    spec: str
    saved: tuple[Saved, ...]
    """In the order of the forward pass."""
    errors: Mapping[str, float]
    """‖ĝ - g‖ / ‖g‖ of the gradients ĝ of each module's own parameters, g dense."""
    error: float
    """The same of all parameters."""

    @property
    def nbytes(self) -> int:
        """What dense holds, a tensor that several functions save counted once at each."""
        return sum(each.nbytes for each in self.saved)

    @property
    def held(self) -> int:
        """What is held instead."""
        return sum(each.held for each in self.saved)

    def __str__(self) -> str:
        """A line for each function of each module; the same in each block of a list are one."""
        lines: dict[tuple[str, ...], list[float]] = {}
        for each in self.saved:
            module = ".".join("*" if part.isdigit() else part for part in each.module.split("."))
            names = (module or "(model)", each.function, each.kind, each.store)
            known = lines.setdefault(names, [0.0] * 5)
            known[:3] = known[0] + 1, known[1] + each.nbytes, known[2] + each.held
            known[3] = max(known[3], each.error or 0.0)
            known[4] = max(known[4], self.errors.get(each.module, 0.0))
        table: list[tuple[str, ...]] = [_HEADER]
        for key, (count, nbytes, held, error, gradients) in lines.items():
            sizes = f"{count:.0f}", f"{nbytes / 2**20:.2f}", f"{held / 2**20:.2f}"
            line = (*key, *sizes, f"{error:.3f}", f"{gradients:.3f}")
            table.append(line)
        total = f"{self.nbytes / 2**20:.2f}", f"{self.held / 2**20:.2f}"
        table.append(
            ("all", "", "", self.spec, str(len(self.saved)), *total, "", f"{self.error:.3f}")
        )
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 4 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        )


@overload
def survey(model: nn.Module) -> dict[str, str]: ...
@overload
def survey(
    model: nn.Module, batch: Any, spec: str | None = None, *, loss: Loss | None = None
) -> Survey: ...
def survey(
    model: nn.Module, batch: Any = None, spec: str | None = None, *, loss: Loss | None = None
) -> dict[str, str] | Survey:
    """Say what a model keeps: module by module, and with a batch function by function.

    Without a batch it tells of each module that has matrices of its own what `convert` makes of it.
    With one it runs two steps on copies, one dense, and tells of every tensor that autograd saves
    which function saves it, what it is kept as or why it is left alone, its bytes and error.

    Args:
        model: any; it stays as it is.
        batch: what the model takes: a tensor, a tuple of arguments, or a dict of keyword arguments.
        spec: what to apply; by default what was applied to the model, else the recommended.
        loss: called with the model and the batch's parts; returns a scalar to differentiate. By
            default the output's `loss`, or the mean square of what it returns.

    Returns:
        Without a batch, by the module's name a spec, `dense` where it could be converted, or
        "left alone: " and the reason. With one, a `Survey`, which prints as a table.

    Raises:
        InputError: the spec is wrong, or nothing that the model returns can be differentiated.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
        >>> actprune.survey(model)
        {'0': 'left alone: no nn.Linear (Conv2d)', '2': 'dense'}
        >>> print(actprune.survey(nn.Linear(4, 2), torch.randn(9, 4)).held)
        0
    """
    return _by_layers(model) if batch is None else _by_batch(model, batch, spec, loss)


def _by_layers(model: nn.Module) -> dict[str, str]:
    layers = pruned(model)
    found = {}
    for name, why in multiplying(model):
        layer = layers.get(name)
        if layer is not None and not any(p.requires_grad for p in layer.parameters()):
            why = "frozen, so that its input is kept nowhere"
        kept = layer.spec if layer is not None else "dense"
        found[name] = kept if why is None else f"left alone: {why}"
    return found


def _by_batch(model: nn.Module, batch: Any, spec: str | None, loss: Loss | None) -> Survey:
    return surveyed(model, batch, spec, loss, lambda: dense_gradients(model, batch, loss))


def dense_gradients(model: nn.Module, batch: Any, loss: Loss | None) -> dict[str, Tensor]:
    """Return the gradient of each parameter, by name, of a plain copy of a model."""
    return _gradients(undo(copy.deepcopy(model)), batch, loss)


def surveyed(
    model: nn.Module,
    batch: Any,
    spec: str | None,
    loss: Loss | None,
    gradients: Callable[[], dict[str, Tensor]],
) -> Survey:
    """Return the survey of a batch by `dense_gradients`, which many specs may share."""
    twin = copy.deepcopy(model)
    applied = any(isinstance(one, Saving) for one in replacements(twin))
    if spec is not None or not applied:
        apply(twin, spec or RECOMMENDED)
    saving = next((one for one in replacements(twin) if isinstance(one, Saving)), None)
    if saving is None:
        raise expected("spec", "rules with @, such as '@*=>codes:bits=4'", repr(spec))
    saving.log = []
    with _names(twin):
        found = _gradients(twin, batch, loss)
    dense = gradients()
    square = {name: float((found[name] - g).double().square().sum()) for name, g in dense.items()}
    whole = {name: float(g.double().square().sum()) for name, g in dense.items()}
    errors: dict[str, float] = {}
    for module in dict.fromkeys(name.rpartition(".")[0] for name in dense):
        own = [name for name in dense if name.rpartition(".")[0] == module]
        errors[module] = _ratio([square[name] for name in own], [whole[name] for name in own])
    error = _ratio(square.values(), whole.values())
    return Survey(spec or RECOMMENDED, tuple(saving.log), errors, error)


def _ratio(squares: Any, wholes: Any) -> float:
    whole = sum(wholes)
    return (sum(squares) / whole) ** 0.5 if whole else 0.0


def _gradients(model: nn.Module, batch: Any, loss: Loss | None) -> dict[str, Tensor]:
    backward(model, batch, loss)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def backward(model: nn.Module, batch: Any, loss: Loss | None) -> None:
    """Leave fresh gradients in a model's parameters, by one step that draws as any other does."""
    backpropagate(model, (), lambda made: _loss_of(made, batch, loss))


def _loss_of(model: nn.Module, batch: Any, loss: Loss | None) -> Tensor:
    args = batch if isinstance(batch, tuple | list) else (batch,)
    if loss is not None:
        return loss(model, *args)
    out = model(**batch) if isinstance(batch, Mapping) else model(*args)
    own = getattr(out, "loss", None)
    if isinstance(own, Tensor):
        return own
    floats = [t for t in tree_iter(out) if isinstance(t, Tensor) and t.requires_grad]
    if not floats:
        raise InputError("model: nothing that it returns has a gradient; pass loss=")
    return torch.stack([t.float().square().mean() for t in floats]).sum()


@contextmanager
def _names(model: nn.Module) -> Iterator[None]:
    """Let what is recorded name the module whose forward runs."""
    stack: list[str] = []
    handles = []

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            stack.append(name)
            _tell(stack)

        return hook

    def leave(*_: Any) -> None:
        stack.pop()
        _tell(stack)

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(stack: list[str]) -> None:
    recorder = recording()
    if recorder is not None:
        recorder.keeping.module = stack[-1] if stack else ""
