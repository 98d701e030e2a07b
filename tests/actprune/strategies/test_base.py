"""Replacements of a forward, laid around one another and taken away again."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune.strategies.base import Replacement, put_back, replace, replacements


class Marking(Replacement):
    """Adds its letter to what its module says it went through."""

    letter: str

    def __call__(self, x: Tensor, said: list[str]) -> Any:
        said.append(self.letter)
        return self.replaced(x, said)


class A(Marking):
    letter = "A"


class B(Marking):
    letter = "B"


class C(Marking):
    letter = "C"


class Doubled(nn.Module):
    """A module whose forward takes a list."""

    def forward(self, x: Tensor, said: list[str]) -> Tensor:
        said.append("own")
        return 2 * x


def path(module: nn.Module) -> str:
    said: list[str] = []
    assert module(torch.ones(1), said).item() == 2
    return " ".join(said)


@pytest.mark.parametrize(
    ("gone", "left"), [(A, "C B own"), (B, "C A own"), (C, "B A own"), (Replacement, "own")]
)
def test_what_is_put_back_leaves_the_others_in_their_order(
    gone: type[Replacement], left: str
) -> None:
    module = Doubled()
    for kind in (A, B, C):
        replace(module, kind(module))
    assert path(module) == "C B A own"
    put_back(module, gone)
    assert path(module) == left
    assert ("forward" in vars(module)) == (left != "own")
    put_back(module, Replacement)
    assert path(module) == "own"


def test_the_innermost_place_is_next_to_the_forward_itself() -> None:
    module = Doubled()
    replace(module, A(module), innermost=True)
    replace(module, B(module))
    replace(module, C(module), innermost=True)
    assert path(module) == "B A C own"
    assert [type(one) for one in replacements(module)] == [B, A, C]
