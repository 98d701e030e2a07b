"""Under torch.compile: what of each tensor is kept, recomputed, compressed or offloaded.

    planned = actprune.graph.backend(0.1)
    step = torch.compile(model, backend=planned)

`actprune.apply(model, "compile(0.1)+dense")` does the same, and `plan_of` tells what it decided.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actprune.graph.plan import Entry, GraphPlan, Plan
from actprune.graph.reading import load

if TYPE_CHECKING:
    from actprune.graph.compiling import Backend, backend, plan_of
    from actprune.graph.options import Errors
    from actprune.graph.profiling import profile

__all__ = [
    "Backend",
    "Entry",
    "Errors",
    "GraphPlan",
    "Plan",
    "backend",
    "load",
    "plan_of",
    "profile",
]
_LATER = {
    "Backend": "compiling",
    "Errors": "options",
    "backend": "compiling",
    "plan_of": "compiling",
    "profile": "profiling",
}
"""By name, the modules that import torch's compiler, which takes longer than torch itself."""


if not TYPE_CHECKING:  # to mypy, every name would be there

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
