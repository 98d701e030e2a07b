"""A format for each linear layer within a budget of bytes, by the weight gradient's error."""

import glob
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actprune.formats import Format, parse
from actprune.inspect.gradients import Loss, backpropagate, loss_of, training_copy
from actprune.solver.items import Errors, Sizes, alternatives
from actprune.solver.search import solve
from actprune.strategies.grammar import plan, undo
from actprune_common.errors import InputError, expected

VALUES = ("same", "int8", "int4", "int2")
CANDIDATES = (
    "dense",
    *(f"bsr:block=1x32,sparsity=0,values={values}" for values in VALUES[1:]),
    *(
        f"bsr:block=1x32,sparsity={sparsity},select=priority,values={values}"
        for sparsity in (0.5, 0.75, 0.9)
        for values in VALUES
    ),
)
"""Unbiased block-sparse stores, their values whole or in fewer bits, and dense."""
_DRAWS = 2
"""Random selections over which an error is averaged."""


@dataclass(frozen=True)
class LayerFormats(Mapping[str, str]):
    """Linear layers, or globs on their names, to specs: what `actprune.convert` takes."""

    formats: dict[str, str]
    nbytes: int
    """Stored by these layers for one backward pass of the profiled batch."""
    error: float
    """Sum over the layers of ‖ĝ - g‖² / ‖g‖²: weight gradients ĝ as profiled, g dense."""

    @property
    def spec(self) -> str:
        """As the text of a plan, which stands wherever a spec does."""
        return plan(self.formats).spec

    def __getitem__(self, name: str) -> str:
        return self.formats[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.formats)

    def __len__(self) -> int:
        return len(self.formats)


@dataclass(frozen=True)
class Profile:
    """What every candidate costs every group of layers.

    Example:
        >>> batch = torch.randn(4, 64), torch.tensor([1, 2, 3, 4])
        >>> made = actprune.profile(nn.Linear(64, 10), batch, candidates=["dense", "csr"])
        >>> made.allocate(400).formats
        {'*': 'csr:sparsity=0.9'}
    """

    groups: tuple[str, ...]
    """Globs; a layer of its own is the glob that matches its name alone."""
    specs: tuple[str, ...]
    nbytes: Sizes
    """(groups, specs)"""
    errors: Errors
    """(groups, specs), each the sum of the layers' ‖ĝ - g‖² / ‖g‖²."""

    def allocate(self, budget: int) -> LayerFormats:
        """The spec of each group, so that the error is least within `budget` bytes.

        Raises InputError below the least bytes.
        """
        if isinstance(budget, bool) or not isinstance(budget, int):
            raise InputError(
                f"budget: expected a whole number of bytes, got {budget!r}; "
                "actprune.parse_bytes reads 4MiB"
            )
        least = int(self.nbytes.min(1).sum())
        if budget < least:
            what = "the least that the candidates can keep of this batch"
            raise expected("budget", f"at least {least} bytes, {what}", budget)
        items = alternatives(self.nbytes, self.errors)
        return self._allocation(solve(items, budget=budget, minimise="error").options)

    def uniform(self, spec: str) -> LayerFormats:
        """The same spec for all. Raises InputError where it is no candidate."""
        wanted = parse(spec).spec
        if wanted not in self.specs:
            raise InputError(f"spec: expected one of {', '.join(self.specs)}, got {wanted}")
        return self._allocation([self.specs.index(wanted)] * len(self.groups))

    def _allocation(self, options: Sequence[int | None]) -> LayerFormats:
        rows, chosen = np.arange(len(self.groups)), np.array(options, np.int64)
        return LayerFormats(
            {group: self.specs[i] for group, i in zip(self.groups, chosen, strict=True)},
            int(self.nbytes[rows, chosen].sum()),
            float(self.errors[rows, chosen].sum()),
        )


def profile(
    model: nn.Module,
    batch: Sequence[Tensor],
    *,
    groups: str | Iterable[str] | None = None,
    candidates: Iterable[str | Format] = CANDIDATES,
    loss: Loss = loss_of,
) -> Profile:
    """Compress every linear layer's activation of one batch in every way, on a copy of a model.

    Counted are layers whose weight has a gradient; bytes are those of their stores, a dense one's
    its input.

    Args:
        model: any with an nn.Linear; it stays as it is.
        batch: what `loss(model, *batch)` takes, by default images (batch, ...) and labels
            (batch,); one forward and backward pass in training mode.
        groups: globs on layer names, of which the first that matches decides; the layers of each
            share a format, and others are left as they are. Without it each layer has its own.
        candidates: formats to measure.
        loss: a scalar to differentiate; by default the cross-entropy.

    Returns:
        Bytes and errors by group and candidate.

    Raises:
        InputError: there is no candidate or a wrong one, no such layer, a glob matches none, or a
            gradient is not finite.

    Example:
        >>> batch = torch.randn(4, 64), torch.tensor([1, 2, 3, 4])
        >>> made = actprune.profile(nn.Linear(64, 10), batch, candidates=["dense"])
        >>> made.nbytes.tolist(), made.errors.tolist()
        ([[1024]], [[0.0]])
    """
    formats = [parse(candidate) for candidate in candidates]
    if not formats:
        raise InputError("candidates: expected at least one format, got none")
    layers = _layers(model, batch, formats, loss)
    members = _members(list(layers), groups)
    costs = [[layers[name] for name in names] for names in members.values()]
    return Profile(
        tuple(members),
        tuple(format.spec for format in formats),
        np.array([sum(cost.nbytes for cost in of_group) for of_group in costs]),
        np.array([sum(cost.errors() for cost in of_group) for of_group in costs]),
    )


@dataclass
class _Cost:
    """The bytes and squared errors of one layer over its uses, by candidate."""

    layer: str
    formats: Sequence[Format]
    nbytes: Sizes
    squares: Errors
    gradient: Tensor | None = None

    def watch(self, _: nn.Module, args: Any, kwargs: Any, out: Tensor) -> None:
        """The layer has run: measure when the gradient of what it gave is known."""
        x = args[0] if args else kwargs["input"]
        if out.requires_grad:
            out.register_hook(partial(self.measure, x.detach()))  # type: ignore[no-untyped-call]

    def measure(self, x: Tensor, grad_output: Tensor) -> None:
        """x: (..., features), grad_output: (..., out_features), which may be autocast's."""
        dy = grad_output.reshape(-1, grad_output.shape[-1])
        x = x.reshape(-1, x.shape[-1]).to(dy.dtype).contiguous()
        dense = dy.t() @ x
        self.gradient = dense if self.gradient is None else self.gradient + dense
        for i, format in enumerate(self.formats):
            draws = _DRAWS if format.stochastic else 1
            for count in range(draws):
                draw = torch.tensor([format.seed, zlib.crc32(self.layer.encode()), count])
                store = format.compress(x, draw)
                off = store.grad_weight(dy) - dense
                self.squares[i] += float(off.double().square().sum()) / draws
            self.nbytes[i] += store.nbytes

    def errors(self) -> Errors:
        assert self.gradient is not None
        norm = float(self.gradient.double().norm())
        relative: Errors = self.squares / (norm**2 or 1.0)
        return relative


def _layers(
    model: nn.Module, batch: Sequence[Tensor], formats: Sequence[Format], loss: Loss
) -> dict[str, _Cost]:
    """What each linear layer that takes part in the loss would cost."""
    plain, count = undo(training_copy(model)), len(formats)
    costs: dict[str, _Cost] = {}
    if not all(tensor.numel() for tensor in batch):
        raise InputError("batch: expected at least one sample, got none")
    for name, layer in plain.named_modules():
        if type(layer) is nn.Linear and layer.weight.requires_grad:
            costs[name] = _Cost(name, formats, np.zeros(count, np.int64), np.zeros(count))
            layer.register_forward_hook(costs[name].watch, with_kwargs=True)
    if costs:
        backpropagate(plain, batch, loss)
    used = {name: cost for name, cost in costs.items() if cost.gradient is not None}
    if not used:
        text = "expected an nn.Linear whose weight takes part in the loss, found none"
        raise InputError(f"model: {text}")
    for name, cost in used.items():
        if not np.isfinite(cost.errors()).all():
            raise InputError(f"model: the weight gradient of {name!r} is not finite on this batch")
    return used


def _members(layers: Sequence[str], groups: str | Iterable[str] | None) -> dict[str, list[str]]:
    """The layers of each glob, in their order; each layer's own without `groups`."""
    if groups is None:
        return {glob.escape(name) or "*": [name] for name in layers}
    members: dict[str, list[str]] = {}
    taken: set[str] = set()
    for group in [groups] if isinstance(groups, str) else groups:
        matching = [name for name in layers if fnmatchcase(name, group)]
        if not matching:
            known = ", ".join(layers[:6])
            raise InputError(f"groups: {group!r} matches no layer with a gradient, such as {known}")
        if left := [name for name in matching if name not in taken]:
            members[group] = left
            taken.update(left)
    if not members:
        raise InputError("groups: expected at least one glob, got none")
    return members
