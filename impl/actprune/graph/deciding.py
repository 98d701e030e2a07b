"""What is done with each value: as the solver finds, as rules say, or as a plan that is given."""

from collections.abc import Collection, Mapping, Sequence

from actprune.graph.plan import ABSENT, RECOMPUTE
from actprune.solver.items import AGAIN, Choice, Item
from actprune_common.errors import InputError


def by_names(items: Sequence[Item], choices: Mapping[str, str], where: str = "plan") -> Choice:
    """Return the choice that names say, and what follows from it.

    What is to be computed again may need others, which then are computed again too; where these
    cannot be, they are kept. So is what is needed and stands nowhere.

    Args:
        items: in order.
        choices: by the name of an item, that of an option, RECOMPUTE or ABSENT.
        where: what an error calls the choices.

    Raises:
        InputError: a choice is none that its item has; the text lists them.
    """
    wanted = [each.needed for each in items]
    options: list[int | None] = [None] * len(items)
    for place in reversed(range(len(items))):
        item = items[place]
        if not wanted[place]:
            continue
        found = _place(item, choices.get(item.name, ABSENT), where)
        options[place] = found
        if found == AGAIN and item.again is not None:
            for each in item.again.inputs:
                wanted[each] = True
    return _summed(items, options)


def _place(item: Item, name: str, where: str) -> int | None:
    names = [option.name for option in item.options]
    if name in names:
        return names.index(name)
    if name in (RECOMPUTE, ABSENT) and item.again is not None:
        return AGAIN
    if name == ABSENT and names:
        return 0
    known = ", ".join([*names, *([RECOMPUTE] if item.again is not None else [])])
    raise InputError(f"{where}: expected one of {known} for {item.name}, got {name!r}")


def _summed(items: Sequence[Item], options: Sequence[int | None]) -> Choice:
    levels, nbytes, seconds, error = [0] * len(items), 0, 0.0, 0.0
    for place, (item, option) in enumerate(zip(items, options, strict=True)):
        if option == AGAIN:
            assert item.again is not None
            levels[place] = max((levels[part] for part in item.again.inputs), default=0)
            seconds += item.again.seconds
            error += item.again.errors[levels[place]]
        elif option is not None:
            one = item.options[option]
            levels[place] = one.level
            nbytes, seconds, error = nbytes + one.nbytes, seconds + one.seconds, error + one.error
    return Choice(tuple(options), tuple(levels), nbytes, seconds, error, seconds, 0.0)


def unknown(items: Sequence[Item], choices: Collection[str]) -> list[str]:
    """Return the names that no item has."""
    known = {item.name for item in items}
    return [name for name in choices if name not in known]
