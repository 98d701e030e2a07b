"""The blocks of a model, found without knowing its class."""

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from torch import nn


def blocks_of(model: nn.Module, glob: str | None = None) -> list[nn.Module]:
    """Return the outermost modules within `model` whose names match a glob, or its blocks without.

    Blocks are the members of the outermost nn.ModuleLists, and of nn.Sequentials those whose class
    stands in it more than once. A module without a forward or without parts is no block.
    """
    if glob is None:
        return list(dict.fromkeys(_repeated(model)))
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        within = name.startswith(tuple(f"{outer}." for outer in found))
        if name and not within and fnmatchcase(name, glob):
            found[name] = module
    return list(found.values())


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    members = Counter(type(child) for child in module.children() if _is_whole(child))
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    least = 1 if isinstance(module, nn.ModuleList) else 2
    for child in module.children():
        if listed and members[type(child)] >= least:
            yield child
        else:
            yield from _repeated(child)


def _is_whole(module: nn.Module) -> bool:
    """Whether it has parts, and a forward that joins them."""
    return type(module).forward is not nn.Module.forward and any(True for _ in module.children())
