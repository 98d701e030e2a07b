"""How kernels are launched: by Triton the first time, then what it compiled, as it would."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch

from actprune_kernels import launch

Call = tuple[tuple[int, ...], tuple[Any, ...]]


class MachineCode:
    """What Triton returns of a launch: launched by grid and all arguments, constexprs included."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments: self.calls.append((grid, arguments))


class Kernel:
    """What triton.jit makes of a function (x, y, size, TILE, DEEP); each launch compiles anew."""

    arg_names = ("x", "y", "size", "TILE", "DEEP")

    def __init__(self) -> None:
        self.fn = lambda: None
        self.compiled: list[MachineCode] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile_and_launch(*operands: Any, **options: Any) -> MachineCode:
            self.compiled.append(MachineCode())
            return self.compiled[-1]

        return compile_and_launch


@pytest.fixture(autouse=True)
def none_compiled() -> Iterator[None]:
    launch._compiled.clear()
    yield
    launch._compiled.clear()


def test_what_was_compiled_is_launched_again() -> None:
    kernel, x = Kernel(), torch.zeros(64)
    for _ in range(3):
        launch.launch(kernel, (5,), x, None, 64, DEEP=True, TILE=16)
    (compiled,) = kernel.compiled
    assert compiled.calls == [((5, 1, 1), (x, None, 64, 16, True))] * 2


def test_whatever_decides_the_machine_code_has_its_own() -> None:
    kernel, x = Kernel(), torch.zeros(64)
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((x, x, 64), {"TILE": 16}),
        ((x, x, 64), {"TILE": 32}),
        ((x, x, 64), {"TILE": 16, "num_warps": 8}),
        ((x, x, 64), {"TILE": 16, "num_stages": 2}),
        ((x, x, 63), {"TILE": 16}),
        ((x, None, 64), {"TILE": 16}),
        ((x.half(), x, 64), {"TILE": 16}),
        ((x[1:], x, 64), {"TILE": 16}),  # not aligned to 16 bytes
    ]
    for _, (operands, options) in product(range(2), ways):
        launch.launch(kernel, (1,), *operands, **options, DEEP=False)
    assert len(kernel.compiled) == len(ways)
    launch.launch(Kernel(), (1,), x, x, 64, TILE=16, DEEP=False)
    assert all(len(compiled.calls) == 1 for compiled in kernel.compiled)
    launch.launch(kernel, (1, 0), x, x, 64, TILE=16, DEEP=False)  # nothing to do
    assert all(len(compiled.calls) == 1 for compiled in kernel.compiled)


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_MOST", 4)
    kernel, x = Kernel(), torch.zeros(64)
    for size in range(10):
        launch.launch(kernel, (1,), x, x, size, TILE=16, DEEP=False)
        assert len(launch._compiled) <= 4
