"""Models of one's own on the command line: what is imported, called, predicted and said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from actprune import InputError
from actprune.budget.peak import step_peak
from actprune_bench.advise.factory import OPTIMIZER, Given, example, given, images
from actprune_bench.cli import app

SOURCE = """
import torch
from torch import nn

def alone():
    parts = [part for _ in range(6) for part in (nn.Linear(64, 64), nn.GELU())]
    return nn.Sequential(*parts)

def both():
    return alone(), torch.randn(2048, 64)

def tokens():
    return nn.Sequential(nn.Embedding(16, 32), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 16))

def wants(size):
    return nn.Linear(size, size)

def nothing():
    return 3

a_name = "text"
"""


@pytest.fixture(autouse=True, scope="module")
def _module(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("own")
    (folder / "factories_of_a_user.py").write_text(SOURCE, "utf-8")
    (folder / "broken_of_a_user.py").write_text("raise RuntimeError('no such luck')", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        yield


def own(name: str) -> str:
    return f"factories_of_a_user:{name}"


def test_what_a_factory_gives() -> None:
    alone, both = given(own("alone"), "8x64"), given(own("both"), None)
    assert (alone.count, both.count, given(own("both"), "4x64").count) == (8, 2048, 4)
    assert step_peak(both.model, both.batch, optimizer=OPTIMIZER) == both.peak("dense", 2048)
    assert both.peak("dense", 4096) > 1.7 * both.peak("dense", 2048)
    larger = Given(both.model, torch.randn(4096, 64))
    assert both.peak("@*=>codes:bits=4", 4096) == larger.peak("@*=>codes:bits=4", 4096)


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("4x3x8x8", (4, 3, 8, 8), torch.float32),
        ("4x128:int64", (4, 128), torch.int64),
        ("7:bfloat16", (7,), torch.bfloat16),
        ("2x2:bool", (2, 2), torch.bool),
    ],
)
def test_batches_of_a_shape(text: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    made = example(text)
    assert (tuple(made.shape), made.dtype) == (shape, dtype)
    assert torch.equal(made, example(text))


@pytest.mark.parametrize("text", ["", "x", "4x", "4x0", "4x3:int", "a", "-4", "4x3x"])
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^batch: expected a shape such as 4x3x224x224, or 4x128"):
        example(text)


@pytest.mark.parametrize("text", [None, "0", "4x3", "-1", "many"])
def test_our_models_take_images(text: str | None) -> None:
    with pytest.raises(InputError, match=r"^batch: expected 1 image or more, got "):
        images(text)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "none_of_a_user:x",
            "^model: 'none_of_a_user' cannot be imported: ModuleNotFoundError: No",
        ),
        (
            "broken_of_a_user:x",
            "^model: 'broken_of_a_user' cannot be imported: RuntimeError: no su",
        ),
        (own("missing"), "^model: expected package.module:factory, a function without arguments"),
        (own("a_name"), "^model: expected package.module:factory"),
        (own(""), "^model: expected package.module:factory"),
        (":alone", "^model: expected package.module:factory"),
        (own("wants"), "^model: .*:wants cannot be called: TypeError: wants.. missing 1 required"),
        (own("nothing"), "^model: expected .*:nothing to return a model, or a model .*, got int$"),
        (own("alone"), "^batch: expected a shape such as .* returns a model alone$"),
    ],
)
def test_what_cannot_be_used_is_named(model: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given(model, None)


def test_a_batch_has_samples() -> None:
    batches: list[Any] = [{}, torch.tensor(1.0)]
    for batch in batches:
        with pytest.raises(InputError, match=r"^batch: expected a tensor whose first size is"):
            _ = Given(torch.nn.Identity(), batch).count
    named: dict[str, Tensor] = {"x": torch.ones(3, 2)}
    assert Given(torch.nn.Identity(), named).count == 3


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_advise_chooses_for_any_model() -> None:
    code, said = run("advise", "--model", own("both"), "--budget", "1GiB")
    assert (code, said.split(":")[0]) == (0, "Dense fits")
    code, said = run("advise", "--model", own("both"), "--budget", "5MiB")
    assert code == 0, said
    assert said.startswith("Take ")
    assert "@*=>codes:bits=" in said
    assert " MiB of 5 MiB (" in said
    assert said.strip().endswith("on this batch.")
    code, said = run("advise", "--model", own("both"), "--budget", "1MiB")
    assert code == 2
    assert "budget: expected at least " in said
    words = ["advise", "--model", own("both"), "--budget", "1MiB", "--results", "x.json"]
    assert "results: expected none for a model of your own" in run(*words)[1]


def test_plan_predicts_any_model(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = ["plan", "--model", own("tokens"), "--batch", "64x32:int64", "--json", str(file)]
    code, said = run(*words, "--device-memory", "2MiB")
    assert code == 0, said
    found = json.loads(file.read_text())
    assert (found["model"], found["batch"]) == (own("tokens"), 64)
    assert "given" not in found
    assert {one["spec"] for one in found["plans"]} >= {"dense", "@*=>codes:bits=4"}
    dense = next(one for one in found["plans"] if one["spec"] == "dense")
    made = given(own("tokens"), "64x32:int64")
    assert dense["peak"] == made.peak("dense", 64)
    count = dense["largest_batch"]
    assert made.peak("dense", count) <= 2 * 2**20 < made.peak("dense", count + 1)


def test_plan_says_what_it_cannot() -> None:
    words = ["plan", "--model", own("both"), "--device-memory", "2MiB", "--parallel"]
    code, said = run(*words, "fsdp")
    assert code == 2
    assert "parallel: expected none or ddp for a model of your own, got 'fsdp'" in said
    code, said = run(*words, "ddp", "--devices", "2", "--format", "dense")
    assert code == 0, said
    assert run("plan", "--model", own("alone"), "--device-memory", "2MiB")[0] == 2
    assert run("plan", "--model", "resmlp_tiny", "--device-memory", "2MiB")[0] == 2
