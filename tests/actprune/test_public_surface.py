"""What `import actprune` offers, and that each name says what it is, with an example that runs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from operator import attrgetter
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
    "the rest": {"InputError", "PrunedLinear", "graph", "ops"},
}
NAMES = sorted(set().union(*SURFACE.values()))
GRAPH = {"Backend", "Entry", "Errors", "GraphPlan", "Plan", "backend", "load", "plan_of", "profile"}
UNDOCUMENTED = {"FORMATS", "RECOMMENDED", "STRATEGIES", "graph", "ops"}
DOCUMENTED = [name for name in NAMES if name not in UNDOCUMENTED]
DOCUMENTED += [f"graph.{name}" for name in sorted(GRAPH)]


def found(name: str) -> Any:
    return attrgetter(name)(actprune)


FUNCTIONS = [name for name in DOCUMENTED if inspect.isfunction(found(name))]


def doc_of(name: str) -> str:
    doc = inspect.getdoc(found(name))
    assert doc, f"{name} has no docstring"
    return doc


def section(name: str, title: str) -> str:
    """A section of a docstring, indentation taken away; empty where there is none."""
    part = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", doc_of(name) + "\n", re.MULTILINE)
    return textwrap.dedent(part[1]) if part else ""


def test_the_surface_is_listed_once() -> None:
    assert sorted(actprune.__all__) == NAMES
    assert sum(map(len, SURFACE.values())) == len(NAMES)
    assert set(actprune.graph.__all__) == GRAPH <= set(dir(actprune.graph))
    with pytest.raises(AttributeError, match=r"'actprune\.graph' has no attribute 'not_yet'"):
        found("graph.not_yet")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_first_line_stands_alone(name: str) -> None:
    first, *rest = doc_of(name).splitlines()
    assert re.fullmatch(r"[A-Z].*\.", first), first
    assert not rest or rest[0] == ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_results_and_errors_are_told(name: str) -> None:
    function = found(name)
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
    torch._dynamo.reset()  # torch counts what it compiled of shared code
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not failed, "".join(said)


def test_no_name_hides_a_module() -> None:
    """Whoever imports `actprune.budget.allocate` has the module, and all that is in it."""
    for each in pkgutil.walk_packages(actprune.__path__, "actprune."):
        if each.name != "actprune.__main__":
            module = importlib.import_module(each.name)
            package, _, name = each.name.rpartition(".")
            assert getattr(importlib.import_module(package), name) is module, each.name
