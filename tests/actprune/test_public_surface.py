"""What `import actprune` offers, and that each name says what it is, with an example that runs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from typing import Any

import pytest
import torch
from torch import nn

import actprune

SURFACE = {
    "models": {"convert", "revert", "pruned", "survey", "Survey", "shard", "weigh"},
    "random selections": {"redraw"},
    "strategies": {"RECOMMENDED", "STRATEGIES", "Plan", "apply", "read", "undo"},
    "lean": {"chains", "lean", "unlean"},
    "formats": {"FORMATS", "Compressed", "Format", "parse"},
    "budget": {"Allocation", "Profile", "allocate", "parse_bytes", "profile"},
    "figures": {"LayerFidelity", "fidelity", "saved_bytes"},
    "the rest": {"InputError", "PrunedLinear", "ops"},
}
NAMES = sorted(set().union(*SURFACE.values()))
DOCUMENTED = [name for name in NAMES if name not in ("FORMATS", "RECOMMENDED", "STRATEGIES", "ops")]
FUNCTIONS = [name for name in DOCUMENTED if inspect.isfunction(getattr(actprune, name))]


def doc_of(name: str) -> str:
    found = inspect.getdoc(getattr(actprune, name))
    assert found, f"{name} has no docstring"
    return found


def section(name: str, title: str) -> str:
    """A section of a docstring, indentation taken away; empty where there is none."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", doc_of(name) + "\n", re.MULTILINE)
    return textwrap.dedent(found[1]) if found else ""


def test_the_surface_is_listed_once() -> None:
    assert sorted(actprune.__all__) == NAMES
    assert sum(map(len, SURFACE.values())) == len(NAMES)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_first_line_stands_alone(name: str) -> None:
    first, *rest = doc_of(name).splitlines()
    assert re.fullmatch(r"[A-Z].*\.", first), first
    assert not rest or rest[0] == ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_results_and_errors_are_told(name: str) -> None:
    function = getattr(actprune, name)
    signature = inspect.signature(function)
    told = re.findall(r"^(\w+): ", section(name, "Args"), re.MULTILINE)
    assert told == list(signature.parameters)
    assert bool(section(name, "Returns")) == (signature.return_annotation is not None)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        assert section(name, "Raises").startswith("InputError: ")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_example_runs(name: str) -> None:
    known: dict[str, Any] = {"actprune": actprune, "torch": torch, "nn": nn}
    test = doctest.DocTestParser().get_doctest(doc_of(name), known, name, None, None)
    assert test.examples
    said: list[str] = []
    torch.manual_seed(0)
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not failed, "".join(said)


def test_no_name_hides_a_module() -> None:
    """Whoever imports `actprune.budget.allocate` has the module, and all that is in it."""
    for found in pkgutil.walk_packages(actprune.__path__, "actprune."):
        if found.name != "actprune.__main__":
            module = importlib.import_module(found.name)
            package, _, name = found.name.rpartition(".")
            assert getattr(importlib.import_module(package), name) is module, found.name
