"""The search for the fastest plan within bytes held, bytes alive and an error."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from actprune.graph.plan import KEEP, RECOMPUTE, GraphPlan
from actprune.graph.schedule import Moment
from actprune.solver.items import AGAIN, Choice, Cut, Item
from actprune.solver.search import least, solve
from actprune_common.errors import InputError, expected

_CALIBRATIONS, _MARGIN = 6, 0.95
"""Plans whose error is measured until one is within the bound; a share of it that is aimed at."""
_CUTS = 16
"""Plans that are tried for a lower peak."""
_STEP = 0.9
"""The peak that is aimed at, as a share of the last."""
_SHARES = (0.8, 0.6, 0.4, 0.2)
"""What is held by plans that are tried then, of what the fastest one holds."""
_SLOWER = 1.02
"""How much more a plan may take, of all that plans cost, for a lower peak that nobody asked for."""


@dataclass(frozen=True)
class Limits:
    """What a plan may take: bytes held, bytes alive, ‖ĝ - g‖ / ‖g‖."""

    held: int | None
    peak: int | None
    error: float | None

    def allow(self, plan: GraphPlan) -> bool:
        """Whether a plan is within the bytes."""
        return (self.held is None or plan.held <= self.held) and (
            self.peak is None or plan.peak <= self.peak
        )

    def checked(self, made: "Made", what: str) -> "Made":
        """Return what was made by a plan that is given. Raises InputError: it is not within."""
        plan = made.plan
        for name, size, limit in (("budget", plan.held, self.held), ("peak", plan.peak, self.peak)):
            if limit is not None and size > limit:
                raise expected(name, f"at least {size} bytes, which the {what} takes", limit)
        if self.error is not None and plan.error > self.error:
            least = f"at least {plan.error:.3g}, which the {what} errs by, as predicted"
            raise expected("error", least, self.error)
        return made


@dataclass(frozen=True)
class Made:
    """The two passes by a plan."""

    passes: tuple[fx.GraphModule, fx.GraphModule]
    plan: GraphPlan
    moments: Callable[[], Sequence[Moment]]
    """Where the most is alive."""


class Search:
    """The search for one graph's plan.

    Args:
        items: what can be done with its values.
        limits: of the plan.
        dense: bytes that torch's partitioner holds, where there is no limit on them.
        measured: what the choices of a plan, by name, err on a batch.
    """

    def __init__(
        self,
        items: Sequence[Item],
        limits: Limits,
        dense: int,
        measured: Callable[[Mapping[str, str]], float] | None,
    ) -> None:
        self.items, self.limits, self.measured = items, limits, measured
        self.budget = dense if limits.held is None else limits.held
        self.bound = None if limits.error is None else limits.error**2

    def best(self, make: Callable[[Choice], Made]) -> Made:
        """Return what `make` makes of the best choice.

        Raises InputError where nothing is within the limits.
        """
        choice = self._calibrated()
        made = best = make(choice)
        limit, cuts = self.limits.peak, []
        for _ in range(_CUTS):
            if limit is not None and best.plan.peak <= limit:
                return best
            goal = best.plan.peak if limit is None else max(limit, made.plan.peak)
            cuts += [self._cut(made.plan, each, int(goal * _STEP)) for each in made.moments()]
            most = _SLOWER * choice.seconds if limit is None else math.inf
            found = self._within(cuts, most=most)
            if found is None:
                break
            made = make(found)
            if limit is None and made.plan.peak >= best.plan.peak:
                break
            best = min(best, made, key=_peak)
        return best if limit is None else self._lower(best, limit, choice, make)

    def _lower(
        self, best: Made, limit: int, choice: Choice, make: Callable[[Choice], Made]
    ) -> Made:
        """The first plan within a limit on its peak of those that hold less and less, or more."""
        for share in (*_SHARES, *(1 / share for share in _SHARES)):
            if best.plan.peak <= limit:
                return best
            found = self._within((), budget=int(min(self.budget, share * choice.nbytes)))
            if found is not None:
                best = min(best, make(found), key=_peak)
        if best.plan.peak <= limit:
            return best
        what = f"at least {best.plan.peak} bytes, the least that was found"
        raise expected("peak", what, limit)

    def _within(
        self, cuts: Sequence[Cut], *, budget: int | None = None, most: float = math.inf
    ) -> Choice | None:
        """The fastest choice within cuts, and within the error on the batch; None without one.

        most: seconds that it may take.
        """
        try:
            budget = self.budget if budget is None else budget
            found = solve(self.items, budget=budget, error=self.bound, cuts=cuts)
        except InputError:
            return None
        return found if found.seconds <= most and self._allowed(found) else None

    def _calibrated(self) -> Choice:
        """The fastest choice within budget and error, as a batch measures it where there is one."""
        least_error = math.inf
        for _ in range(_CALIBRATIONS):
            choice = self._solved()
            if self.bound is None or self.measured is None or self.limits.error is None:
                return choice
            error = self.measured(names(self.items, choice))
            if error <= self.limits.error:
                return choice
            least_error = min(least_error, error)
            self.bound = min(self.bound, choice.error) * (_MARGIN * self.limits.error / error) ** 2
        what = f"at least {least_error:.3g}, the least that was found in this budget on the batch"
        raise expected("error", what, self.limits.error)

    def _solved(self) -> Choice:
        """The fastest choice within budget and bound; else the text is of what a person gave."""
        try:
            return solve(self.items, budget=self.budget, error=self.bound)
        except InputError:
            if self.bound is None:
                raise
        what = f"at least {least(self.items, self.bound)} bytes, the least that was found"
        within = f"{what} within an error of {self.limits.error}"
        raise expected("budget", within, self.budget)

    def _allowed(self, choice: Choice) -> bool:
        """Whether a choice errs no more than it may, on the batch."""
        if self.limits.error is None or self.measured is None:
            return True
        return self.measured(names(self.items, choice)) <= self.limits.error

    def _cut(self, plan: GraphPlan, moment: Moment, aim: int) -> Cut:
        """What is alive at a moment of a plan is no more than `aim`."""
        weights: dict[tuple[int, int], float] = {}
        for place, item in enumerate(self.items):
            size = plan.entries[place].nbytes
            for option, each in enumerate(item.options):
                if item.name in moment.idle and each.name != KEEP:
                    weights[place, option] = each.nbytes  # decoded anew when it is read next
                elif item.name in moment.live:
                    weights[place, option] = max(size, each.nbytes)
                elif item.name in moment.pending:
                    weights[place, option] = each.nbytes
            if item.name in moment.live and item.again is not None:
                weights[place, AGAIN] = size
        return Cut(weights, max(0, aim - moment.others))


def _peak(made: Made) -> int:
    return made.plan.peak


def names(items: Sequence[Item], choice: Choice) -> dict[str, str]:
    """Return the options of a choice by name, as a plan says them."""
    return {
        item.name: RECOMPUTE if option == AGAIN else item.options[option].name
        for item, option in zip(items, choice.options, strict=True)
        if option is not None
    }
