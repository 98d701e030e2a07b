"""The best choice of what is done with each tensor, within bytes and errors: a 0/1 programme.

A column is one way in which an item is there: an option, or computed again at a level of error. An
item takes one column at most. Computed again at level l, it needs each of its inputs there at l or
less. Without the limits these rows are nearly those of a closure problem, so that the relaxation,
in which shares of columns may be taken, is nearly whole: a few columns decide where a limit cuts.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actprune.solver.columns import Columns, Floats, columns_of
from actprune.solver.items import Choice, Cut, Item
from actprune_common.errors import InputError, expected

Quantity = Literal["seconds", "nbytes", "error"]
Mask = NDArray[np.bool_]
"""By column."""
EXACT = 200
"""Columns up to which a search goes to its end, unless the caller says otherwise.

It does so for any number of them where nothing is computed again: that takes little.
"""
GAP = 0.02
"""What a choice may be above its bound, as a share of itself, where another search ends."""
_NODES, _NODES_TO_THE_END = 20_000, 500_000
"""Nodes x columns of a search: a limit on time would not be the same on each machine."""
_COLUMNS = 4000
"""Columns above which what was found first is not searched beyond."""
_SCALE, _TIE = 1e6, 1e-3
"""What the bound is scaled to, and what all bytes weigh beside it, to tell equal choices apart."""
_LIMIT = 1e3
"""What limits are scaled to. HiGHS tells 1e-6 apart, and fails where that is too little of one."""
_NEAR = 1e-5
"""What a column may cost beyond the relaxation's, as a share of it, to be looked at first."""
_LARGEST = 1e9
"""What no cost is scaled above."""
_SAME = 1e-7
"""Shares of a bound that are no gap."""
_TRIES, _FORBIDDEN, _PRECISION = 12, 4, 1e-9
"""Searches for what rounding has not put above a limit, the first that tightens it, by how much."""
_INFEASIBLE = 2


def solve(
    items: Sequence[Item],
    *,
    budget: int | None = None,
    error: float | None = None,
    minimise: Quantity = "seconds",
    exact: bool | None = None,
    cuts: Sequence[Cut] = (),
) -> Choice:
    """Choose what is done with each tensor, so that a sum over all of them is least.

    The same problem has the same choice. Of equal ones, to about nine digits, it is the one of
    fewer bytes, or of less time where bytes are least.

    Args:
        items: what one is computed from has a smaller place. Where errors of one that is computed
            again fall as the level rises, the largest before counts.
        budget: bytes that the choice holds at most.
        error: what the errors sum up to at most.
        minimise: "seconds", "nbytes" or "error".
        cuts: limits on what is alive at other moments.
        exact: whether to search until there is nothing better; by default up to EXACT columns.

    Returns:
        The best choice; or, where the search ended before, one that states its gap.

    Raises:
        InputError: nothing is within the budget, or within the error: it says the least that is;
            or nothing is within the cuts.
            Or scipy is missing.
        ValueError: an item is computed from a later one; or is needed, and can be there in no way.

    Example:
        >>> x = Item("x", True, (Option("keep", 64), Option("codes:bits=4", 9, 1e-5, 2, 0.01)))
        >>> y = Item("gelu(x)", True, (Option("keep", 64),), Again((0,), 2e-5))
        >>> [solve([x, y], budget=budget).options for budget in (128, 80, 64, 9)]
        [(0, 0), (1, 0), (0, -1), (1, -1)]
    """
    columns = columns_of(items)
    search = _Search(columns, minimise, budget, error, cuts)
    found = search.best(exact)
    if found is not None:
        return found
    if cuts:
        raise InputError("cuts: expected limits that a choice can be within, got none such")
    fewest = _Search(columns, "nbytes", None, error).best(exact)
    if fewest is None:
        finest = _Search(columns, "error", None, None).best(exact)
        assert finest is not None
        what = f"at least {finest.error}, the least that this graph can have"
        raise expected("error", what, error)
    if budget is None or fewest.nbytes <= budget:
        return search.rated(fewest)
    within = "" if error is None else f" within an error of {error}"
    what = f"at least {fewest.nbytes} bytes, the least that this graph can hold{within}"
    raise expected("budget", what, budget)


def least(items: Sequence[Item], error: float | None = None) -> int:
    """Return the fewest bytes that a choice can hold, within an error.

    Raises InputError where nothing is within the error.

    Example:
        >>> x = Item("x", True, (Option("keep", 64), Option("codes:bits=4", 9, 1e-5, 2, 0.01)))
        >>> y = Item("gelu(x)", True, (Option("keep", 64),), Again((0,), 1e-5, (0, 0, 0.02, 1)))
        >>> least([x, y]), least([x, y], error=0.01)
        (9, 64)
    """
    return solve(items, error=error, minimise="nbytes").nbytes


class _Search:
    """The search for the choice of least cost within limits.

    Costs are scaled so that the bound is _SCALE, where that does not make others too large.
    """

    def __init__(
        self,
        columns: Columns,
        minimise: Quantity,
        budget: int | None,
        error: float | None,
        cuts: Sequence[Cut] = (),
    ) -> None:
        self.columns, self.minimise = columns, minimise
        limits = {"nbytes": budget, "error": error}
        self.limits = {name: limit for name, limit in limits.items() if limit is not None}
        allowed = np.ones(len(columns.ways), np.bool_)
        for name, limit in self.limits.items():
            allowed &= columns.costs[name] <= limit
        self.allowed, self.costs = allowed, {k: v * allowed for k, v in columns.costs.items()}
        self.rows, self.most, self.equal = _rows(columns, self.limits, self.costs)
        for cut in cuts:
            self.row(_cut(columns, cut), _LIMIT if cut.most else 0.0)
        self.scale, self.bound = 1.0, 0.0

    def best(self, exact: bool | None) -> Choice | None:
        """Return the best choice that is found, None where nothing is.

        The columns that the relaxation takes, or nearly, are searched first; then those with which
        something could be better than that.
        """
        count = len(self.allowed)
        if not all(limit >= 0 for limit in self.limits.values()):
            return None
        if not count:
            return self.columns.choice(())
        beyond = self.relaxed()
        if beyond is None:
            return None
        small = count <= EXACT or not self.columns.needs
        wanted = 0.0 if exact or (small and exact is None) else GAP
        nodes = None if exact else (_NODES if wanted else _NODES_TO_THE_END) // count
        first, _ = self.whole(beyond <= _NEAR * _SCALE, wanted / 4, nodes)
        cost = np.inf if first is None else self.scale * getattr(first, self.minimise)
        better = self.allowed & (beyond <= cost - self.bound + _TIE)
        better &= self.costs[self.minimise] * self.scale <= cost
        if first is not None:
            first = self.rated(first)
            if first.gap <= wanted or (wanted and better.sum() > _COLUMNS):
                return first
        second, bound = self.whole(better, wanted, nodes)
        self.bound = max(self.bound, min(bound, cost))
        found = [choice for choice in (second, first) if choice is not None]
        key = attrgetter(self.minimise, _other(self.minimise))
        return self.rated(min(found, key=key)) if found else None

    def rated(self, choice: Choice) -> Choice:
        """Return it with its bound and its gap, which is 0 below what the search tells apart."""
        value, bound = float(getattr(choice, self.minimise)), self.bound / self.scale
        if (value - bound) * self.scale <= max(2 * _TIE, _SAME * self.bound):
            bound = value
        return replace(choice, bound=bound, gap=(value - bound) / value if value else 0.0)

    def relaxed(self) -> Floats | None:
        """Return what taking each column costs, at least, beyond the relaxation.

        Infinite is what a limit forbids; None says that not even shares are within the limits.
        Sets the scale and the bound.
        """
        cost, less, equal = self.costs[self.minimise], ~self.equal, self.equal
        unit = _SCALE / (float(cost.sum()) or 1.0)
        made = _scipy("optimize").linprog(
            cost * unit,
            *(self.rows[less], self.most[less], self.rows[equal], self.most[equal]),
            bounds=np.stack([np.zeros(len(cost)), self.allowed], 1),
            method="highs",
        )
        if made.status == _INFEASIBLE:
            return None
        if made.x is None:
            raise RuntimeError(f"scipy.optimize.linprog: {made.message}")
        more = _LARGEST / ((float(cost.max()) or 1.0) * unit)
        if made.fun > 0:
            more = min(more, _SCALE / made.fun)
        self.scale, self.bound = unit * more, max(made.fun, 0.0) * more
        beyond: Floats = np.where(made.x > 0, 0.0, made.lower.marginals * more)
        return np.where(self.allowed, beyond, np.inf)

    def whole(self, mask: Mask, gap: float, nodes: int | None) -> tuple[Choice | None, float]:
        """Return the best choice of some columns that is found, and what none costs less than.

        What rounding has put above a limit is forbidden, all of it together; where that does not
        end, or HiGHS fails, the limit is made a little tighter.
        """
        bound, slack, tight = -np.inf, 0.0, np.ones(len(self.limits))
        for attempt in range(_TRIES):
            made = self.searched(mask, tight, gap, nodes)
            if made.status == _INFEASIBLE:
                return None, bound if slack else np.inf
            if made.mip_dual_bound is not None and not slack:
                bound = max(bound, made.mip_dual_bound - _TIE)
            over = list(range(len(tight)))
            if made.x is not None:
                taken = np.flatnonzero(made.x > 0.5)
                choice = self.columns.choice(taken.tolist())
                over = [i for i, (k, v) in enumerate(self.limits.items()) if getattr(choice, k) > v]
                if not over:
                    return choice, bound
                self.forbid(taken, over)
            elif made.mip_dual_bound is not None:  # there were no more nodes
                return None, bound
            if made.x is None or attempt >= _FORBIDDEN:
                slack = 10 * slack or _PRECISION
                tight[over] = 1 - slack
        return None, bound

    def searched(self, mask: Mask, tight: Floats, gap: float, nodes: int | None) -> Any:
        """What scipy found among some columns, with shares of the limits."""
        optimize, tie = _scipy("optimize"), self.costs[_other(self.minimise)]
        most = np.append(self.most[: len(tight)] * tight, self.most[len(tight) :])
        low = np.where(self.equal, most, -np.inf)
        return optimize.milp(
            self.costs[self.minimise] * self.scale + tie * (_TIE / (float(tie.sum()) or 1.0)),
            integrality=np.ones(len(mask)),
            bounds=optimize.Bounds(0, mask.astype(float)),
            constraints=optimize.LinearConstraint(self.rows, low, most),
            options={"mip_rel_gap": gap} | ({} if nodes is None else {"node_limit": nodes}),
        )

    def forbid(self, taken: NDArray[np.int64], over: Sequence[int]) -> None:
        """Let no choice take all of these columns that count for the same limit."""
        for row in over:
            counts = np.zeros(len(self.allowed))
            counts[taken] = self.rows[[row]].toarray()[0, taken] > 0
            self.row(counts, counts.sum() - 1)

    def row(self, weights: Floats, most: float) -> None:
        """Let columns sum up to so much at most."""
        sparse = _scipy("sparse")
        self.rows = sparse.vstack([self.rows, sparse.csr_array(weights[None])]).tocsr()
        self.most = np.append(self.most, most)
        self.equal = np.append(self.equal, False)


def _rows(
    columns: Columns, limits: Mapping[str, float], costs: Mapping[str, Floats]
) -> tuple[Any, Floats, Mask]:
    """Rows by column, the most that each sums up to, and whether it has to; limits come first."""
    sparse = _scipy("sparse")
    of: list[tuple[list[int], list[int]]] = [(list(each), []) for each in columns.of]
    pairs = [*of, *((row.taken, row.there) for row in columns.needs)]
    place = np.repeat(np.arange(len(pairs)), [len(a) + len(b) for a, b in pairs])
    column = np.array([c for pair in pairs for half in pair for c in half], np.int64)
    sign = np.array([s for a, b in pairs for s in [1.0] * len(a) + [-1.0] * len(b)])
    shape = len(pairs), len(columns.ways)
    scaled = [costs[name] / (limit or 1) * _LIMIT for name, limit in limits.items()]
    limited = sparse.csr_array(np.array(scaled).reshape(len(limits), shape[1]))
    rows = sparse.vstack([limited, sparse.csr_array((sign, (place, column)), shape)]).tocsr()
    most = [*[_LIMIT] * len(limits), *[1.0] * len(of), *[0.0] * len(columns.needs)]
    equal = [False] * len(limits) + [item.needed for item in columns.items]
    return rows, np.array(most), np.array(equal + [False] * len(columns.needs))


def _cut(columns: Columns, cut: Cut) -> Floats:
    """What each column counts, scaled."""
    places = np.repeat(np.arange(len(columns.of)), [len(each) for each in columns.of])
    ways = zip(places.tolist(), columns.ways, strict=True)
    found = [cut.weights.get((place, option), 0.0) for place, (option, _) in ways]
    return np.array(found) / (cut.most or 1) * _LIMIT


def _other(minimise: str) -> str:
    """What tells equal choices apart."""
    return "seconds" if minimise == "nbytes" else "nbytes"


def _scipy(part: str) -> Any:
    """A part of scipy, imported only where something is solved."""
    try:
        return importlib.import_module(f"scipy.{part}")
    except ImportError:
        what = "the package scipy, which finds what fits a budget: pip install scipy"
        raise expected("budget", what, "none") from None
