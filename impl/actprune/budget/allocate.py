"""What everything that autograd saves is kept as, so that a whole step fits into a budget."""

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from itertools import takewhile
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from actprune.budget.peak import Optimizer, step_peak
from actprune.formats import Format, PruningFormat, parse
from actprune.inspect.gradients import Loss
from actprune.inspect.survey import Survey, dense_gradients, surveyed
from actprune.saved.operators import KINDS, PRODUCTS
from actprune.saved.rules import Rule
from actprune.solver.items import alternatives
from actprune.solver.search import solve
from actprune.strategies.grammar import read
from actprune_common.errors import InputError, expected
from actprune_common.sizes import parse_bytes

CANDIDATES = ("dense", "codes:bits=8", "codes:bits=4")
"""From the least error to the fewest bytes."""
Level = Mapping[str, str]
"""What each kind is kept as, everywhere."""
Pair = tuple[str, str]
"""A glob on module names, and a kind of function."""
_PROBES = 7
"""Plans whose peak is predicted on the way to the one that fills the budget."""
_BLOCKS = 4
"""Modules of a list, at least, that is divided into its first half and the rest."""


@dataclass(frozen=True)
class Allocation:
    """A spec with which a whole training step fits into a budget.

    Example:
        >>> layers = [part for _ in range(6) for part in (nn.Linear(64, 64), nn.GELU())]
        >>> made = actprune.allocate(nn.Sequential(*layers), torch.randn(4096, 64), "8MiB")
        >>> made.peak <= made.budget < made.dense_peak
        True
    """

    spec: str
    """What `apply` takes."""
    budget: int
    peak: int
    """Predicted bytes at the peak of a step."""
    dense_peak: int
    """The same of the plain model."""
    error: float
    """‖ĝ - g‖ / ‖g‖ of all gradients ĝ of the batch, g dense."""


def allocate(
    model: nn.Module,
    batch: Any,
    budget: int | str,
    *,
    groups: str | Iterable[str] | None = None,
    candidates: Iterable[str | Format] = CANDIDATES,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    sample: Any = None,
) -> Allocation:
    """Choose what is kept for the backward pass, so that a whole training step fits a budget.

    Where dense fits, that is it. Else each kind of function in each group of modules takes one of
    the candidates; where the least of them do not fit either, products are run again as well
    (`recompute+`). Peaks are predicted on fake tensors, errors measured by a step for each choice.

    Args:
        model: any; it stays as it is.
        batch: what the model takes: a tensor, a tuple of arguments, or a dict of keyword arguments.
        budget: for all that is alive at the peak of a step, in bytes or as text: "24GiB".
        groups: globs on module names, of which the first that matches decides; all others are one
            more. By default the first half of the longest list of blocks.
        candidates: formats, from the least error to the fewest bytes. Those that prune are for
            products alone.
        loss: called with the model and the batch's parts, as `survey` does it.
        optimizer: the one that trains the model, or what makes one of its parameters, such as
            `torch.optim.AdamW`: its state and its step are part of the budget.
        sample: a smaller batch to measure errors on, where the dense model cannot run the whole.

    Returns:
        A spec, which `apply` takes, with its predicted peak and measured error.

    Raises:
        InputError: the budget is no size, or below the least that there is, which it says; a glob
            or a candidate is wrong.

    Example:
        >>> model, batch = nn.Sequential(nn.Linear(64, 64), nn.GELU()), torch.randn(4096, 64)
        >>> made = actprune.allocate(model, batch, "1GiB", optimizer=torch.optim.AdamW)
        >>> made.spec
        'dense'
        >>> model = actprune.apply(model, made.spec)
    """
    size, globs, levels = _size(budget), _globs(model, groups), _levels(candidates)
    peak = cache(partial(step_peak, model, batch, loss=loss, optimizer=optimizer))
    dense = peak("dense")
    if dense <= size:
        return Allocation("dense", size, dense, dense, 0.0)
    ladder = [("", level) for level in levels] + [("recompute+", levels[-1])]
    place = next((i for i, rung in enumerate(ladder) if peak(_text(*rung)) <= size), None)
    if place is None:
        fewest = min(dense, *(peak(_text(*rung)) for rung in ladder))
        what = f"at least {fewest} bytes, the least that a step on this batch can take"
        raise expected("budget", what, size)
    better = levels[max(min(place, len(levels) - 1) - 1, 0)]
    errors = _Errors(model, batch if sample is None else sample, loss)
    choice = _Choice(*ladder[place], better, globs, errors)
    fitting = _filling(choice, lambda spec: peak(spec) <= size)
    spec = min(reversed(fitting), key=errors)
    return Allocation(spec, size, peak(spec), dense, errors(spec))


class _Errors:
    """The error of each spec, on one batch."""

    def __init__(self, model: nn.Module, batch: Any, loss: Loss | None) -> None:
        gradients = dense_gradients(model, batch, loss)
        again = partial(surveyed, model, batch, loss=loss, gradients=lambda: gradients)
        self.survey: Callable[[str], Survey] = cache(again)

    def __call__(self, spec: str) -> float:
        return self.survey(spec).error


class _Choice:
    """Which kinds in which groups are kept better than a level at which all of them fit.

    What each of them costs is measured by keeping it alone better: stores are shared, so one that
    is kept better while all else is dense would cost and help nothing.
    """

    def __init__(
        self, prefix: str, base: Level, better: Level, globs: Sequence[str], errors: _Errors
    ) -> None:
        self.prefix, self.base, self.better, self.globs = prefix, base, better, globs
        found = errors.survey(_text(prefix, base))
        self.pairs = [p for p in _occurring(found, globs) if base[p[1]] != better[p[1]]]
        self.nbytes = np.zeros((len(self.pairs), 2), np.int64)
        self.errors = np.zeros((len(self.pairs), 2))
        for row, pair in enumerate(self.pairs):
            one = errors.survey(self.spec([pair]))
            self.nbytes[row] = 0, max(0, one.held - found.held)
            self.errors[row] = max(0.0, found.error**2 - one.error**2), 0

    def within(self, limit: int) -> str:
        """Return the spec of least error that holds `limit` bytes more than the level."""
        items = alternatives(self.nbytes, self.errors)
        chosen = solve(items, budget=limit, minimise="error").options
        return self.spec([p for p, taken in zip(self.pairs, chosen, strict=True) if taken])

    def spec(self, raised: Sequence[Pair]) -> str:
        """Return the text in which these alone are kept better."""
        return _text(self.prefix, self.base, self.globs, dict.fromkeys(raised, self.better))


def _filling(choice: _Choice, fits: Callable[[str], bool]) -> list[str]:
    """Specs that fit, each of which holds more than the one before; the level itself is first."""
    low, high = 0, int(choice.nbytes.sum())
    found = [_text(choice.prefix, choice.base)]
    for _ in range(_PROBES if choice.pairs else 0):
        middle = (low + high) // 2
        spec = choice.within(middle)
        if spec in found or fits(spec):
            low = middle
            found.append(spec)
        else:
            high = middle
    return found


def _size(budget: int | str) -> int:
    if isinstance(budget, str):
        return parse_bytes(budget)
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise expected("budget", "whole bytes, or a text such as 24GiB", repr(budget))
    return budget


def _levels(candidates: Iterable[str | Format]) -> list[Level]:
    """What each kind is kept as, candidate by candidate; those that prune are for products."""
    formats = [parse(candidate) for candidate in candidates]
    if not formats:
        raise InputError("candidates: expected at least one format, got none")
    levels: list[Level] = []
    level = dict.fromkeys(KINDS, "dense")
    for format in formats:
        prunes = isinstance(format, PruningFormat)
        level = level | dict.fromkeys(PRODUCTS if prunes else KINDS, format.spec)
        levels.append(level)
    return levels


def _text(
    prefix: str,
    level: Level,
    globs: Sequence[str] = ("*",),
    raised: Mapping[Pair, Level] = MappingProxyType({}),
) -> str:
    """As a spec, in which the last glob is of all that the others do not name."""
    rules, rest = [], level["rest"]
    for kind in KINDS:
        *formats, last = [raised.get((glob, kind), level)[kind] for glob in globs]
        while formats and formats[-1] == last:  # what follows says the same
            formats.pop()
        rules += [f"{g}@{kind}=>{format}" for g, format in zip(globs, formats, strict=False)]
        if last != rest:
            rules.append(f"@{kind}=>{last}")
    return read(prefix + ";".join([*rules, f"@*=>{rest}"])).spec


def _globs(model: nn.Module, groups: str | Iterable[str] | None) -> list[str]:
    """Globs on the names of modules; the last is of all."""
    if groups is None:
        groups = _first_half(model)
    found = [groups] if isinstance(groups, str) else list(groups)
    for group in found:
        if not any(fnmatchcase(name, group) for name, _ in model.named_modules()):
            raise InputError(f"groups: {group!r} matches no module of the model")
    return [*dict.fromkeys(takewhile(lambda group: group != "*", found)), "*"]


def _first_half(model: nn.Module) -> list[str]:
    """The first half of the longest list of modules that there is, ten at most."""
    lists = {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and name
        if all(child.isdigit() for child, _ in module.named_children())
    }
    longest = max(lists, key=lists.__getitem__, default="")
    count = lists.get(longest, 0)
    return [f"{glob.escape(longest)}.[0-{min(count // 2, 10) - 1}]"] if count >= _BLOCKS else []


def _occurring(found: Survey, globs: Sequence[str]) -> list[Pair]:
    """The kinds for which something is saved, by the group that it is in."""
    pairs: dict[Pair, None] = {}
    for each in found.saved:
        groups = (g for g in globs if Rule(g, "*", parse("dense")).names(each.module, each.kind))
        pairs[next(groups), each.kind] = None
    return list(pairs)
