"""Finds the benchmarks of a suite as asv does (its documentation, "Writing benchmarks")."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from types import ModuleType
from typing import Any

KINDS = ("time", "timeraw", "track", "peakmem")
UNITS = {"time": "seconds", "timeraw": "seconds", "peakmem": "bytes"}
TIMEOUT = 60
"""Seconds, where a benchmark says nothing; asv's default."""


class CannotRunError(Exception):
    """The benchmark says that it cannot run here."""


class Benchmark:
    """One benchmark with all its parameters."""

    def __init__(self, name: str, kind: str, sources: Sequence[Any]) -> None:
        """`sources`: the function, the instance of its class if it has one, the module."""
        self.name, self.kind, self.sources = name, kind, sources
        self.function: Callable[..., Any] = sources[0]
        params = list(self.attribute("params", []))
        if params and not isinstance(params[0], (tuple, list)):
            params = [params]
        self.params = [list(axis) for axis in params]
        names = [str(name) for name in self.attribute("param_names", [])][: len(params)]
        self.param_names = names + [f"param{i + 1}" for i in range(len(names), len(params))]
        self.setup_cache = self.attribute("setup_cache", None)

    def attribute(self, name: str, default: Any) -> Any:
        """Of the function, else of its class, else of its module."""
        return next((getattr(s, name) for s in self.sources if hasattr(s, name)), default)

    def hooks(self, name: str) -> list[Callable[..., Any]]:
        """All of the module, the class and the function; `setup` runs in this order."""
        found = [getattr(s, name) for s in reversed(self.sources) if hasattr(s, name)]
        return [hook for i, hook in enumerate(found) if hook not in found[:i]]

    def described(self) -> dict[str, Any]:
        """What asv's benchmarks.json says of it, as far as it matters here."""
        return {
            "name": self.name,
            "kind": self.kind,
            "params": [[spelt(value) for value in axis] for axis in self.params],
            "param_names": self.param_names,
            "unit": str(self.attribute("unit", UNITS.get(self.kind, "unit"))),
            "timeout": float(self.attribute("timeout", TIMEOUT)),
            "cache_timeout": float(getattr(self.setup_cache, "timeout", 0)),
            "deterministic": bool(self.attribute("deterministic", False)),
        }

    def point(self, params: Sequence[str]) -> tuple[Any, ...]:
        """The parameters spelt so. Raises CannotRunError where it has or takes none such."""
        for point in product(*self.params):
            if [spelt(value) for value in point] == list(params):
                if point in map(tuple, getattr(self.function, "skip_params", ())):
                    raise CannotRunError("not for these parameters")
                return point
        raise CannotRunError(f"has no parameters {', '.join(params)}")


def spelt(value: object) -> str:
    """repr without an address in it, as asv writes parameters."""
    return re.sub(r"^(<.*) at 0x[\da-fA-F]+>$", r"\1>", repr(value))


def discover(root: str) -> tuple[dict[str, Benchmark], dict[str, str]]:
    """The benchmarks of a package by name, and which modules could not be imported, and why."""
    found: dict[str, Benchmark] = {}
    problems: dict[str, str] = {}
    for module in _modules(root, problems):
        for name, value in list(vars(module).items()):
            if name.startswith("_"):
                continue
            if inspect.isclass(value) and not inspect.isabstract(value):
                for method, function in inspect.getmembers(value, inspect.isfunction):
                    if kind_of(method, function):
                        _add(found, method, module, value)
            elif inspect.isfunction(value) and kind_of(name, value):
                _add(found, name, module, None)
    return found, problems


def kind_of(name: str, function: Any) -> str | None:
    """Which kind of benchmark a function of this name is, if it is one."""
    last = str(getattr(function, "benchmark_name", name)).rpartition(".")[2]
    kind, _, rest = last.partition("_")
    wanted = kind in KINDS and rest and not getattr(function, "skip_benchmark", False)
    return kind if wanted else None


def told(problem: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:500] if text else type(problem).__name__


def _modules(name: str, problems: dict[str, str]) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as problem:
        problems[name] = told(problem)
        return
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        yield from _modules(f"{name}.{found.name}", problems)


def _add(
    found: dict[str, Benchmark], attribute: str, module: ModuleType, owner: type | None
) -> None:
    place = [*module.__name__.split(".")[1:], *([owner.__name__] if owner else []), attribute]
    instance = owner() if owner else None
    function = getattr(instance or module, attribute)
    name = str(getattr(function, "benchmark_name", ".".join(place)))
    sources = [function, *([instance] if instance else []), module]
    found[name] = Benchmark(name, str(kind_of(attribute, function)), sources)
