"""docs/compiled.md: its code runs, and its specs are specs."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from actprune.graph import Backend, Plan, profiling
from actprune.graph import compiling as graph
from actprune.strategies.grammar import read

PAGE = (Path(__file__).parents[3] / "docs/compiled.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_the_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, name in ((graph, "backend"), (profiling, "profile")):  # without inductor's code
        monkeypatch.setattr(module, name, partial(getattr(module, name), compiler="aot_eager"))
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    known: dict[str, Any] = {"MyModel": lambda: model, "batch": torch.randn(512, 64)}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, known)
    assert isinstance(known["followed"], Backend)
    assert isinstance(known["plan"], Plan)
    assert known["followed"].plan.held == known["planned"].plan.held
    assert (tmp_path / "plan.html").is_file()
    assert "choices of 0 tensors changed" in capsys.readouterr().out


def test_the_specs_are_read() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## Specs")[2].partition("## ")[0], re.M)
    assert len(rows) == 8
    for spec in rows:
        assert read(spec).compiles
